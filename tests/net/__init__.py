"""Networks, driven as an ordinary user against peers on this machine."""
