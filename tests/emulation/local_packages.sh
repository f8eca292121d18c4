# Builds two packages with dpkg-deb and installs them; run as root of a Debian container without a network. The first makes a user
# in its preinst; both have files of that user, setuid and setgid programs, a capability and links.
set -e
umask 022
cd "$(mktemp -d)"

mkdir -p crew/DEBIAN crew/usr/lib/crew crew/var/lib/crew/spool crew/etc/crew
cat > crew/DEBIAN/control <<END
Package: crew
Version: 1
Architecture: all
Maintainer: nobody <nobody@invalid>
Description: users and their files
END
cat > crew/DEBIAN/preinst <<'END'
#!/bin/sh -e
getent passwd crew > /dev/null || useradd --system --uid 420 --user-group --home-dir /var/lib/crew --shell /usr/sbin/nologin crew
END
cat > crew/DEBIAN/postinst <<'END'
#!/bin/sh -e
[ "$1" = configure ] || exit 0
chown -R crew:crew /var/lib/crew
chmod 2770 /var/lib/crew/spool
chown root:crew /etc/crew/secret
chmod 640 /etc/crew/secret
dpkg-statoverride --list /usr/lib/crew/helper > /dev/null || dpkg-statoverride --add --update root crew 4750 /usr/lib/crew/helper
python3 -c 'import os; os.setxattr("/usr/lib/crew/raw", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))'
su -s /bin/sh crew -c 'echo made by its user > /var/lib/crew/spool/own; ln -sfn own /var/lib/crew/spool/link; mkdir -p /var/lib/crew/spool/directory'
END
cat > crew/DEBIAN/prerm <<'END'
#!/bin/sh -e
END
chmod 755 crew/DEBIAN/p*
echo secret > crew/etc/crew/secret
for program in helper raw; do cp /bin/true crew/usr/lib/crew/$program; done
cp /bin/true crew/usr/lib/crew/games
chown root:games crew/usr/lib/crew/games
chmod 2755 crew/usr/lib/crew/games
chown man crew/var/lib/crew/spool
ln crew/usr/lib/crew/raw crew/usr/lib/crew/raw-too
ln -s raw crew/usr/lib/crew/raw-link
dpkg-deb -b crew crew.deb > /dev/null

mkdir -p more/DEBIAN more/var/lib/crew/more
sed 's/^Package: .*/Package: crew-more\nDepends: crew/' crew/DEBIAN/control > more/DEBIAN/control
echo more > more/var/lib/crew/more/file
# Owned by a number that only the first package's preinst gives a name.
chown -R 420:420 more/var/lib/crew/more
dpkg-deb -b more more.deb > /dev/null

dpkg -i crew.deb more.deb > /dev/null
# A second time: files are replaced, the override and the owners stay.
dpkg -i crew.deb > /dev/null
# And one that is gone again.
sed -i 's/^Package: .*/Package: guest/' more/DEBIAN/control
rm -r more/var
mkdir -p more/opt/guest
chown 77:88 more/opt/guest
dpkg-deb -b more guest.deb > /dev/null
dpkg -i guest.deb > /dev/null
dpkg --purge guest > /dev/null

[ -z "$(dpkg --verify crew)" ]
[ "$(dpkg-deb -c crew.deb | grep -c ' root/games ')" = 1 ]
[ "$(stat -c '%U:%G %a' /usr/lib/crew/helper)" = "root:crew 4750" ]
[ "$(stat -c '%U:%G %a' /var/lib/crew/spool)" = "crew:crew 2770" ]
[ "$(stat -c %U /var/lib/crew/spool/own)" = crew ]
! su -s /bin/sh games -c 'cat /etc/crew/secret' 2> /dev/null
mkdir -p /opt
cp -a /var/lib/crew /opt/crew
tar -c -C /var/lib crew | tar -x --same-owner -C /opt --transform s,^crew,from-tar,
[ "$(cd /var/lib/crew && find . -printf '%p %u %g %m\n' | sort)" = "$(cd /opt/from-tar && find . -printf '%p %u %g %m\n' | sort)" ]
rm -rf "$PWD"
echo "all as it should be"
