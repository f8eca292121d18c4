"""Programs people use, run on the machine itself, in a user namespace and in the trap isolation: all three must say the same.

The image is the machine's own tree (`host`), so the same programs run everywhere; what is not installed is skipped. Each case is a
script that begins in an empty directory and prints nothing that differs from one run to the next by itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Run, runner

from .conftest import runner_in

BASH = r"""
shopt -s extglob globstar nullglob; mkdir -p a/b/c; touch a/{1..5}.txt a/b/x a/b/c/y; echo **/*; echo a/!(3*)
diff <(seq 3) <(seq 4) ; coproc cat; echo to >&"${COPROC[1]}"; exec {COPROC[1]}>&-; cat <&"${COPROC[0]}"
trap 'echo heard' USR1; kill -USR1 $$; (trap 'echo out' EXIT; exit 3); echo $?; set -m; sleep 50 & kill %1; wait %1; echo $?
mapfile -t lines < <(ls a); echo ${#lines[@]}; exec 7<>f; echo seven >&7; cat f; cat <<< "${BASH_SOURCE:-none}"; ulimit -n 99; ulimit -n
for i in 1 2 3; do (exit $i) & done; wait -n; wait; echo waited; [[ /dev/fd/0 -ef /proc/self/fd/0 ]] && echo same
true | false | true; echo "${PIPESTATUS[@]}"; umask 027; mkdir u; touch u/f; stat -c '%a %F' u u/f; cd a/b/c; cd ../..; echo "${PWD##*/}"
"""

TAR = r"""
mkdir -p t/d/e; seq 9999 > t/d/n; ln t/d/n t/hard; ln -s d/n t/soft; ln -s /none t/dangling; mkfifo t/pipe; chmod 640 t/d/n; chmod 2750 t/d/e
truncate -s 1M t/sparse; echo x | dd of=t/sparse bs=1 seek=500000 conv=notrunc 2>&1 | tail -0; for i in $(seq 300); do echo $i > t/d/e/$i; done
flags="--sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner"; tar $flags -Scf t.tar t; sha256sum t.tar; mkdir o; tar -C o -xpf t.tar
tar -C o $flags -Scf o.tar t; cmp t.tar o.tar && echo equal; stat -c '%h %a %s %F' o/t/* ; diff -r --no-dereference t o/t | head -3
tar -C o -xf t.tar --overwrite; tar -df t.tar -C o 2>&1 | grep -v -e Uid -e Gid -e 'Mod time'; rm -r t o; ls; gzip -9n t.tar; tar -tzf t.tar.gz | wc -l; cpio -V > /dev/null 2>&1; ls
"""

GIT = r"""
export GIT_AUTHOR_DATE=2024-01-01T00:00:00Z GIT_COMMITTER_DATE=2024-01-01T00:00:00Z GIT_CONFIG_NOSYSTEM=1 HOME=$PWD
git config --global user.name A; git config --global user.email a@example.org; git config --global init.defaultBranch main
git init -q r; cd r; for i in $(seq 200); do echo $i > f$i; done; mkdir d; ln -s ../f1 d/l; git add .; git commit -qm one; git rev-parse HEAD
seq 99 > f7; git rm -q f8; git mv f9 d/f9; git add -A; git commit -qm two; git rev-parse HEAD; git branch b HEAD~1; git checkout -q b; echo b > b
git add b; git commit -qm b; git merge -q -m m main; git rev-parse HEAD; git gc -q; git fsck --strict; git status --porcelain | wc -l; cd ..
git clone -q --no-local r c; cd c; git log --format=%H | sha256sum; git worktree add -q ../w origin/main; ls ../w | wc -l; echo z > f1; git stash -q
git status --porcelain; git stash pop -q; git diff --stat; git archive HEAD | sha256sum; git bisect start HEAD HEAD~2 > /dev/null; git bisect reset -q; echo $?
"""

SQLITE = r"""
sqlite3 d.db "pragma journal_mode=wal; create table t(a integer primary key, b); begin; with recursive n(i) as (select 1 union all select i + 1 \
from n where i < 20000) insert into t select i, hex(i * 7919) from n; commit; create index i on t(b); select count(*), max(b) from t;"
sqlite3 d.db "attach 'e.db' as e; create table e.u as select * from t where a % 3 = 0; delete from t where a % 2; vacuum; pragma integrity_check; \
select count(*) from t; select count(*) from e.u;"; sqlite3 d.db .dump | sha256sum; ls
for i in 1 2 3 4; do sqlite3 -cmd '.timeout 20000' d.db "begin immediate; insert into t(b) values('$i'); commit" & done; wait; sqlite3 d.db 'select count(*) from t'
"""

C_PROJECT = r"""
mkdir s; for i in 1 2 3 4 5 6; do printf '#include "all.h"\nint f%d(int x) { return x * %d + 1; }\n' $i $i > s/f$i.c; echo "int f$i(int);" >> s/all.h; done
printf '#include <stdio.h>\n#include "all.h"\nint main(void) { printf("%%d\\n", f1(f2(f3(f4(f5(f6(1))))))); return 0; }\n' > s/main.c
printf 'CFLAGS = -O1 -fPIC -ffile-prefix-map=$(CURDIR)=.\nO = $(patsubst %%.c,%%.o,$(wildcard f*.c))\nall: p q check\nlibf.so: $O\n\t$(CC) -shared -o $@ $^\nlibf.a: $O\n\t$(AR) rcD $@ $^\n' > s/Makefile
printf 'p: main.o libf.so\n\t$(CC) -o $@ main.o -L. -lf -Wl,-rpath,"\\$$ORIGIN"\nq: main.o libf.a\n\t$(CC) -static -o $@ main.o libf.a\ncheck: p q\n\t./p > out; ./q >> out\n$O main.o: all.h\n' >> s/Makefile
make -s -j2 -C s all && cat s/out; cat s/*.o | sha256sum; touch -d '+1 hour' s/f1.c; make -s -C s -q libf.so; echo $?; make -C s -j2 -s all 2>/dev/null; ls s
"""

PYTHON = r"""
cat > p.py <<'END'
import asyncio, concurrent.futures, ctypes, fcntl, glob, json, mmap, multiprocessing, os, pathlib, pickle, shutil, signal
import socket, subprocess, sys, tempfile, threading, time, zipfile

def square(x):
    return x * x

def main():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(square, range(10)))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        print(sum(pool.map(lambda i: len(os.listdir("/etc")) and i, range(200))))
    queue = multiprocessing.get_context("fork").Queue()
    child = multiprocessing.get_context("fork").Process(target=lambda: queue.put(os.getpid()))
    child.start(); print(queue.get() == child.pid); child.join()

    async def talk():
        server = await asyncio.start_unix_server(lambda r, w: asyncio.ensure_future(echo(r, w)), "sock")
        reader, writer = await asyncio.open_unix_connection("sock")
        writer.write(b"hello\n"); print(await reader.readline()); writer.close(); server.close()
        shell = await asyncio.create_subprocess_exec("sh", "-c", "echo from sh; exit 4", stdout=-1)
        print(await shell.communicate(), shell.returncode)

    async def echo(reader, writer):
        writer.write(await reader.readline()); await writer.drain()

    asyncio.run(talk())
    with open("m", "w+b") as file:
        file.truncate(8192); view = mmap.mmap(file.fileno(), 8192); view[5000:5005] = b"mmapd"; view.flush()
        fcntl.lockf(file, fcntl.LOCK_EX); print(os.pread(file.fileno(), 5, 5000))
    with tempfile.TemporaryFile(dir=".") as file, tempfile.TemporaryDirectory(dir=".") as directory:
        file.write(b"x"); print(os.fstat(file.fileno()).st_nlink, len(os.listdir(directory)))
    shutil.copytree("/etc/ssl" if os.path.isdir("/etc/ssl") else "/etc/apt", "copied", symlinks=True, ignore=lambda *_: ["private"])
    shutil.make_archive("z", "zip", "copied"); print(len(zipfile.ZipFile("z.zip").namelist()) > 0)
    signal.signal(signal.SIGALRM, lambda *_: print("alarm")); signal.setitimer(signal.ITIMER_REAL, 0.3); signal.pause()
    print(os.stat("p.py").st_ino == [e.inode() for e in os.scandir(".") if e.name == "p.py"][0], os.getcwd() == os.path.realpath("."))
    fd = os.open(".", os.O_RDONLY); os.mkdir("x", dir_fd=fd); os.rename("x", "y", src_dir_fd=fd, dst_dir_fd=fd); print(os.path.isdir("y"))
    a, b = socket.socketpair(); socket.send_fds(a, [b"f"], [fd]); _, fds, _, _ = socket.recv_fds(b, 9, 1); print("p.py" in os.listdir(fds[0]))
    print(pathlib.Path(os.readlink(f"/proc/self/fd/{fds[0]}")) == pathlib.Path.cwd(), subprocess.run([sys.executable, "-c", "import sys; sys.exit(9)"]).returncode)
    try: os.execv("/etc/passwd", ["x"])
    except PermissionError as error: print(error.errno)
    sys.stdout.flush(); os.execv(sys.executable, [sys.executable, "-c", "print('executed')"])

if __name__ == "__main__":
    main()
END
/usr/bin/python3 p.py; /usr/bin/python3 -m venv --without-pip v; v/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'
mkdir -p w/pkg w/pkg-1.0.dist-info; echo 'answer = 42' > w/pkg/__init__.py; printf 'Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n' > w/pkg-1.0.dist-info/METADATA
(cd w; /usr/bin/python3 -m zipfile -c ../pkg-1.0-py3-none-any.whl pkg pkg-1.0.dist-info); (cd v/lib/python3*/site-packages; /usr/bin/python3 -m zipfile -e "$OLDPWD"/pkg-*.whl . 2>/dev/null || /usr/bin/python3 -m zipfile -e ../../../../pkg-*.whl .)
v/bin/python -c 'import pkg, importlib.metadata; print(pkg.answer, importlib.metadata.version("pkg"))'
"""

NODE = r"""
cat > n.js <<'END'
const fs = require('fs'), cp = require('child_process'), { Worker, isMainThread, parentPort } = require('worker_threads');
if (!isMainThread) { let s = 0; for (let i = 0; i < 3e6; i++) s = (s * 31 + i) | 0; parentPort.postMessage(s); }
else {
  fs.mkdirSync('d/e', { recursive: true }); for (let i = 0; i < 200; i++) fs.writeFileSync(`d/e/${i}`, String(i));
  console.log(fs.readdirSync('d/e').length, cp.execSync('echo child').toString(), cp.spawnSync('sh', ['-c', 'exit 5']).status);
  let f = new Function('n', 'let a = 0; for (let i = 0; i < n; i++) a += Math.sqrt(i); return a'); console.log(f(1e6) === f(1e6));
  const w = new Worker(__filename); w.on('message', m => { console.log(m); fs.promises.rm('d', { recursive: true }).then(() => console.log(fs.existsSync('d'))); });
  console.log(fs.realpathSync('.') === process.cwd(), process.execPath === fs.realpathSync('/proc/self/exe'));
}
END
node n.js
"""

JAVA = r"""
cat > H.java <<'END'
import java.nio.file.*; import java.util.stream.*;
public class H {
  static long work(long n) { long s = 0; for (long i = 0; i < n; i++) s = s * 31 + i; return s; }
  public static void main(String[] a) throws Exception {
    Path d = Files.createDirectory(Path.of("d")); for (int i = 0; i < 100; i++) Files.writeString(d.resolve("" + i), "" + i);
    System.out.println(IntStream.range(0, 8).parallel().mapToLong(i -> work(3_000_000 + i)).sum());
    try (var s = Files.walk(d)) { System.out.println(s.count()); }
    var p = new ProcessBuilder("sh", "-c", "echo from sh; exit 3").redirectErrorStream(true).start();
    System.out.print(new String(p.getInputStream().readAllBytes())); System.out.println(p.waitFor());
    Files.move(d.resolve("1"), d.resolve("x"), StandardCopyOption.ATOMIC_MOVE); System.out.println(Files.exists(d.resolve("1")));
    System.out.println(d.toRealPath().equals(Path.of("").toAbsolutePath().toRealPath().resolve("d")));
  }
}
END
javac H.java && java -XX:TieredStopAtLevel=4 -Xshare:auto H
"""

GO = r"""
cat > g.go <<'END'
package main
import ("fmt"; "os"; "os/exec"; "path/filepath"; "sync")
func main() {
  var group sync.WaitGroup
  os.Mkdir("d", 0755)
  for i := 0; i < 50; i++ { group.Add(1); go func(i int) { defer group.Done(); os.WriteFile(fmt.Sprintf("d/%d", i), []byte("x"), 0644) }(i) }
  group.Wait(); names, _ := filepath.Glob("d/*"); fmt.Println(len(names)); out, err := exec.Command("sh", "-c", "echo child; exit 2").Output(); fmt.Println(string(out), err)
  os.RemoveAll("d"); _, err = os.Stat("d"); fmt.Println(os.IsNotExist(err)); here, _ := os.Getwd(); real, _ := filepath.EvalSymlinks("."); fmt.Println(here != "", real)
}
END
HOME=$PWD CGO_ENABLED=0 GOFLAGS=-mod=mod go build -o g g.go && ./g
"""

BUSYBOX = r"""
mkdir bin; cp "$(command -v busybox)" bin/busybox; bin/busybox sh -c 'for i in 1 2 3; do echo $i; done | bin/busybox sort -r; bin/busybox mkdir -p q/r; bin/busybox touch q/r/f; bin/busybox find q | bin/busybox sort; bin/busybox tar c q | bin/busybox md5sum | bin/busybox wc -c'
bin/busybox vi -h 2>&1 | head -0; bin/busybox ls -l q/r | bin/busybox wc -l; bin/busybox readlink -f q/r/../r/f | bin/busybox grep -c q/r/f; bin/busybox rm -r q; bin/busybox ls; exec bin/busybox printf '%s\n' over
"""

POSTGRES = r"""
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); export PATH=$bin:$PATH LC_ALL=C PGHOST=$PWD PGPORT=5999; become=
if [ "$(id -u)" = 0 ]; then chmod 755 .; chown 65534:65534 .; become='setpriv --reuid 65534 --regid 65534 --clear-groups'; fi
$become initdb -N -A trust -U postgres -D db > log 2>&1 || tail -3 log; $become pg_ctl -w -s -D db -o "-c listen_addresses= -c unix_socket_directories=$PWD" -l server start || cat server
pgbench -i -q -U postgres postgres > /dev/null 2>&1; echo $?; pgbench -U postgres -c 2 -t 20 postgres 2>/dev/null | grep processed; psql -U postgres -Atc 'select count(*) from pgbench_accounts; select count(*) from pgbench_tellers'
$become pg_ctl -w -s -D db -m fast stop; echo $?; ls db | wc -l; $become pg_controldata -D db | grep 'cluster state'
"""

# Name: the programs it needs, and the script.
CASES: dict[str, tuple[list[str], str]] = {
    "bash": (["bash"], BASH),
    "tar": (["tar", "gzip"], TAR),
    "git": (["git"], GIT),
    "sqlite": (["sqlite3"], SQLITE),
    "c-project": (["gcc", "make"], C_PROJECT),
    "python": (["/usr/bin/python3"], PYTHON),
    "node": (["node"], NODE),
    "java": (["java", "javac"], JAVA),
    "go": (["go"], GO),
    "rsync": (["rsync"], "cp -r /etc/apt a; rsync -a --delete a/ b/; diff -r a b && echo same; echo z > b/z; rsync -a --delete -i a/ b/"),
    "busybox": (["busybox"], BUSYBOX),
    "postgres": (["/usr/lib/postgresql"], POSTGRES),
}  # fmt: skip


def _is_there(program: str) -> bool:
    return (
        os.path.exists(program) if program.startswith("/") else shutil.which(program, path=PATH) is not None
    )


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module")
def boxes(trap_root: Path) -> Iterator[dict[str, tuple[Run, str]]]:
    """Containers of the machine's own tree that wait for commands: one in a user namespace, one in the trap isolation."""
    words = ["run", "-d", "--init", "--network", "host", "-e", f"PATH={PATH}", "host", "sleep", "1000"]
    runs = {"userns": runner(trap_root), "trap": runner_in("pod", trap_root)}
    found = {isolation: (run, run(*words, check=True).stdout.strip()) for isolation, run in runs.items()}
    yield found
    for run, name in found.values():
        run("rm", "-f", name)


@pytest.mark.parametrize("case", CASES)
def test_a_program_says_the_same_everywhere(case: str, boxes: dict[str, tuple[Run, str]]) -> None:
    needed, script = CASES[case]
    missing = [program for program in needed if not _is_there(program)]
    if missing:
        pytest.skip(f"not installed: {' '.join(missing)}")
    script = f'exec 2>&1; cd "$(mktemp -d)"; {script}'
    # Sockets' paths are short.
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        natively = subprocess.run(
            ["bash", "-c", script],
            text=True,
            capture_output=True,
            env={"PATH": PATH, "HOME": place, "TMPDIR": place},
            timeout=120,
        )
    expected = (natively.returncode, natively.stdout)
    assert "not found" not in natively.stdout and natively.stdout, natively.stdout
    for isolation, (run, name) in boxes.items():
        # Of the machine's directories this is one that a container's root may write to in both.
        done = run("exec", "-e", "HOME=/root", "-e", "TMPDIR=/srv", name, "bash", "-c", script, timeout=120)
        assert (done.returncode, done.stdout) == expected, f"{isolation}: {done.stderr}"
