"""Owners that survive from a chown under one uid to a layer, and back."""

from __future__ import annotations

import os

from conftest import Run

CHANGES = """touch /a; chown 5:6 /a; mknod /n b 8 1; ln -s x /l; chown -h 7:8 /l; mkdir /var/mail/q
echo more >> /etc/shadow; mv /etc/twice /etc/once; su ann -c 'touch /home/ann/new'; chown 0:0 /home/ann/notes
touch /gone; chown 9 /gone; rm /gone; touch /gone"""
LOOK = (
    "stat -c '%n %u %g %a %F' /a /n /l /var/mail /var/mail/q /etc/shadow /etc/once /etc/twice.link /home/ann"
    " /home/ann/new /home/ann/notes /gone"
)


def test_owners_are_the_same_in_the_container_and_in_an_image_made_of_it(alone: Run) -> None:
    image = f"committed{os.urandom(4).hex()}"
    name = alone("run", "-d", "users", "sh", "-c", f"{CHANGES}; sleep 1000", check=True).stdout.strip()
    try:
        while alone("exec", name, "test", "-e", "/gone").returncode:
            pass
        inside = alone("exec", name, "sh", "-c", LOOK, check=True).stdout
        alone("commit", name, image, check=True)
        again = alone("run", "--rm", image, "sh", "-c", LOOK, check=True).stdout
    finally:
        alone("rm", "-f", name)
    assert again == inside
    assert "/a 5 6 644" in inside and "/n 0 0 644 block special file" in inside
    assert "/home/ann/new 1000 1000" in inside and "/home/ann/notes 0 0" in inside
    assert "/etc/shadow 0 42 640" in inside and "/etc/once 7 8" in inside and "/gone 0 0" in inside
