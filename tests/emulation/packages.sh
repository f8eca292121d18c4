# Installs real packages and puts their users to work; run by same_image.py as root of a Debian container on the machine's network.
# /machine-apt holds the apt configuration by which this machine reaches its packages.
set -e
trap 'echo "line $LINENO failed"' ERR
export DEBIAN_FRONTEND=noninteractive
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d
cp -r /machine-apt/. /etc/apt/
rm -f /etc/apt/apt.conf.d/*docker*
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get -q update
apt-get -q install -y --no-install-recommends \
    postgresql nginx-light openssh-server man-db dbus sudo acl rsync libcap2-bin procps

equal() { # WHAT EXPECTED COMMAND...
    local what=$1 expected=$2 found
    shift 2
    found=$("$@" 2>&1) || true
    [ "$found" = "$expected" ] || { echo "$what: expected \`$expected\`, found \`$found\`"; exit 1; }
}
eventually() { # as equal, of what comes about after a moment
    local left=100
    while [ $((left--)) -gt 0 ] && [ "$("${@:3}" 2>&1)" != "$2" ]; do sleep 0.1; done
    equal "$@"
}
refused() { # WHAT COMMAND...: it must fail
    local what=$1
    shift
    ! "$@" > /dev/null 2>&1 || { echo "$what: was not refused"; exit 1; }
}

# What the packages say of themselves, and what they set up.
equal "dpkg -V" "" dpkg -V
equal "setgid by a package" "_ssh 2755" stat -c '%G %a' /usr/bin/ssh-agent
equal "setuid to a group" "root messagebus 4754" stat -c '%U %G %a' /usr/lib/dbus-1.0/dbus-daemon-launch-helper
equal "a cache of its own" man stat -c %U /var/cache/man

# The cluster runs as its user and refuses to run as root.
refused "postgres as root" /usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main
pg_ctlcluster 15 main start
equal "who serves" postgres ps -o user= -p "$(head -1 /var/lib/postgresql/15/main/postmaster.pid)"
equal "a query as postgres" 42 su - postgres -c 'psql -Atc "select 6 * 7"'
refused "a query as root, whom the cluster does not know" psql -Atc 'select 1'
pg_ctlcluster 15 main stop

# nginx: its master is root, its workers are not, and serve what they may read.
sed -i 's/80 default_server/8088 default_server/' /etc/nginx/sites-available/default
nginx
eventually "whose workers" www-data sh -c 'ps -C nginx -o user= | sort -u | grep -v root'
kill "$(cat /run/nginx.pid)"
while pgrep nginx > /dev/null; do sleep 0.1; done

mkdir -p /run/dbus
dbus-daemon --system --fork
equal "a call on the bus" "" sh -c 'dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames > /dev/null'
eventually "whose bus" messagebus ps -C dbus-daemon -o user=
kill "$(cat /run/dbus/pid)"
mkdir -p /run/sshd

# Users come and go; su and sudo are setuid programs.
useradd -m -s /bin/bash ann
echo ann:secret | chpasswd
usermod -aG sudo ann
equal "su" "ann 1000 ann sudo" su - ann -c 'echo $(id -un) $(id -u) $(id -Gn)'
equal "sudo by password" root su ann -c 'echo secret | sudo -S -p "" id -un'
refused "sudo without one" su ann -c 'sudo -k; sudo -n true'
equal "sudo to another" www-data sudo -u www-data id -un
refused "su with a wrong password" su ann -c 'echo wrong | su root -c true'
refused "a user reads shadow" su ann -c 'cat /etc/shadow'
refused "a user gives away" su ann -c 'touch /tmp/mine; chown postgres /tmp/mine'
su ann -c 'rm -f /tmp/mine'

# sshd: unprivileged while it talks to a stranger, root to look up ann, then ann.
ssh-keygen -q -t ed25519 -N '' -f /root/key
install -d -o ann -g ann -m 700 /home/ann/.ssh
install -o ann -g ann -m 600 /root/key.pub /home/ann/.ssh/authorized_keys
/usr/sbin/sshd -p 2222 -o ListenAddress=127.0.0.1 -o PidFile=/run/sshd.pid -E /var/log/sshd.log
login() { ssh -p 2222 -i /root/key -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR "$@"; }
eventually "a login" "ann 1000 ann sudo /home/ann" login ann@127.0.0.1 'echo $(id -un) $(id -u) $(id -Gn) $PWD'
equal "who serves it" "ann" login ann@127.0.0.1 'ps -o user= -p $PPID'
scp -q -P 2222 -i /root/key -o StrictHostKeyChecking=no -p /usr/bin/ssh-agent ann@127.0.0.1:
equal "a copy over it" "ann ann 755" stat -c '%U %G %a' /home/ann/ssh-agent
refused "a login as root without a key" login root@127.0.0.1 true
chmod 666 /home/ann/.ssh/authorized_keys
refused "a login by keys that all may write" login ann@127.0.0.1 true
rm /home/ann/ssh-agent
kill "$(cat /run/sshd.pid)"

adduser --quiet --system --group --home /var/lib/zed zed
useradd -m bob
userdel -r bob 2> /dev/null
equal "runuser" www-data runuser -u www-data -- id -un
equal "setpriv" "33 33" setpriv --reuid 33 --regid 33 --clear-groups sh -c 'echo $(id -u) $(id -g)'

# Owners, modes, capabilities and access lists through the usual tools.
mkdir -p /work/d/sub
cd /work
echo a > d/a
ln d/a d/b
ln -s a d/l
mkfifo d/p
chown -R ann:www-data d
chown -h postgres d/l
chmod 4755 d/a
chmod 2775 d/sub
setfacl -m u:postgres:rwx d/sub
setfacl -d -m g:man:rx d/sub
touch d/sub/made
mkdir d/sub/below
cp /bin/true d/cap
setcap cap_net_raw=ep d/cap
equal "getcap" "d/cap cap_net_raw=ep" getcap -r d
tar -cf d.tar --xattrs --xattrs-include='*' --acls d
mkdir from-tar
tar -xf d.tar --same-owner --xattrs --xattrs-include='*' --acls -C from-tar
rsync -aHAX d/ by-rsync/
cp -a d by-cp
install -o ann -g man -m 4750 d/a installed
install -d -o ann -g www-data installed-directory
for copy in from-tar/d by-rsync by-cp; do
    equal "owners of $copy" "$(cd d && ls -lnR --time-style=+)" sh -c "cd $copy && ls -lnR --time-style=+"
    equal "lists of $copy" "$(cd d && getfacl -pRn .)" sh -c "cd $copy && getfacl -pRn ."
    equal "capabilities of $copy" "$(cd d && getcap -r .)" sh -c "cd $copy && getcap -r ."
done
dpkg-statoverride --add --update root _ssh 2755 /work/installed
echo "all as it should be"
