/* Calls made so often that the place they are made from is replaced: what they say must not change on the way.
 *
 * Each case calls ROUNDS times from one place; the first of them stop at the tracer, the last are answered in the process. Prints a line
 * for a case: its name, and the one answer, or "differs" and all of them. Ends with 1 when something differed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ROUNDS 9

static int failed;

static void report(const char *name, long *answers)
{
	for (int i = 1; i < ROUNDS; i++)
		if (answers[i] != answers[0]) {
			printf("%s differs:", name);
			for (int k = 0; k < ROUNDS; k++)
				printf(" %ld", answers[k]);
			printf("\n");
			failed = 1;
			return;
		}
	printf("%s %ld\n", name, answers[0]);
}

/* One place for each number of call: `what` is evaluated there, errno is its answer when it fails. */
#define CASE(name, what) \
	do { \
		long answers[ROUNDS]; \
		for (int i = 0; i < ROUNDS; i++) { \
			errno = 0; \
			long answer = (what); \
			answers[i] = answer < 0 ? -errno : answer; \
		} \
		report(name, answers); \
	} while (0)

/* The calls themselves, each from one place, with the number in front of the instruction as C libraries have it. */
#define PLACE(name, number) \
	static long name(long a, long b, long c, long d, long e) \
	{ \
		long result; \
		register long r10 asm("r10") = d; \
		register long r8 asm("r8") = e; \
		asm volatile("mov %1, %%eax\n\tsyscall" \
			: "=&a"(result) : "i"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory"); \
		if (result < 0 && result > -4096) { errno = -result; return -1; } \
		return result; \
	} \
	static long (*volatile keep_##name)(long, long, long, long, long) = name;

PLACE(xopenat, 257) PLACE(xfstatat, 262) PLACE(xfstat, 5) PLACE(xaccess, 21) PLACE(xreadlinkat, 267) PLACE(xgetdents, 217)
PLACE(xunlinkat, 263) PLACE(xmkdirat, 258) PLACE(xrename, 82) PLACE(xfchmod, 91) PLACE(xfchown, 93) PLACE(xchmod, 90)
PLACE(xutimensat, 280) PLACE(xstatx, 332) PLACE(xgetxattr, 191) PLACE(xsymlinkat, 266) PLACE(xgetcwd, 79) PLACE(xfchownat, 260) PLACE(xlstat, 6)

#define openat(d, p, f, m) keep_xopenat(d, (long)(p), f, m, 0)
#define fstatat(d, p, s, f) keep_xfstatat(d, (long)(p), (long)(s), f, 0)
#define HERE AT_FDCWD

static long mode_of(const char *path, int flags)
{
	struct stat s;
	long result = fstatat(HERE, path, &s, flags);
	return result < 0 ? result : (long)s.st_mode | (long)s.st_uid << 20 | (long)s.st_nlink << 40;
}

static long size_of(const char *path)
{
	struct stat s;
	return fstatat(HERE, path, &s, 0) < 0 ? -1 : (long)s.st_size;
}

static long read_all(const char *path)
{
	char room[64];
	int fd = openat(HERE, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	long count = read(fd, room, sizeof room), sum = 0;
	for (long i = 0; i < count; i++)
		sum += room[i];
	close(fd);
	return count < 0 ? -1 : sum + 1000 * count;
}

static long write_all(const char *path, int flags, const char *text)
{
	int fd = openat(HERE, path, O_WRONLY | O_CLOEXEC | flags, 0640);
	if (fd < 0)
		return -1;
	long count = write(fd, text, strlen(text));
	close(fd);
	return count;
}

static long listed(const char *path)
{
	_Alignas(8) char room[512];
	int fd = openat(HERE, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	long sum = 0, count;
	if (fd < 0)
		return -1;
	while ((count = keep_xgetdents(fd, (long)room, sizeof room, 0, 0)) > 0)
		for (long at = 0; at < count; at += *(unsigned short *)(room + at + 16))
			for (char *c = room + at + 19; *c; c++)
				sum += *c;
	close(fd);
	return count < 0 ? -1 : sum;
}

/* The number of a directory that layers have a part in, asked for in three ways. */
static long number(const char *path)
{
	struct stat a, b;
	struct statx c;
	int fd = openat(HERE, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0 || keep_xfstat(fd, (long)&a, 0, 0, 0) || fstatat(HERE, path, &b, 0) || keep_xstatx(HERE, (long)path, 0, 0x7ff, (long)&c))
		return -1;
	close(fd);
	return a.st_ino == b.st_ino && b.st_ino == c.stx_ino && a.st_dev == b.st_dev ? (long)a.st_ino : -2;
}

static long stays(const char *path)
{
	static long first[3];
	static const char *names[3];
	for (int i = 0; i < 3; i++)
		if (names[i] == path || !names[i]) {
			names[i] = path;
			first[i] = first[i] ? first[i] : number(path);
			return first[i] == number(path) && first[i] > 0;
		}
	return -1;
}

/* Makes, changes, renames and takes away; each round the same in the end. */
static long lives(const char *directory)
{
	char a[300], b[300], d[300], l[300];
	struct stat s;
	long sum = 0;
	snprintf(a, sizeof a, "%s/life", directory);
	snprintf(b, sizeof b, "%s/life2", directory);
	snprintf(d, sizeof d, "%s/lifed", directory);
	snprintf(l, sizeof l, "%s/lifel", directory);
	if (write_all(a, O_CREAT | O_EXCL, "one") != 3 || write_all(a, O_APPEND, "two") != 3)
		return -1;
	if (write_all(a, O_CREAT | O_EXCL, "x") != -1 || errno != EEXIST)
		return -2;
	int fd = openat(HERE, a, O_RDWR, 0);
	sum += keep_xfchmod(fd, 0604, 0, 0, 0) + keep_xfchown(fd, 0, 0, 0, 0);
	struct timespec times[2] = {{1000, 0}, {2000, 0}};
	sum += keep_xutimensat(fd, 0, (long)times, 0, 0);
	if (keep_xfstat(fd, (long)&s, 0, 0, 0) || s.st_mtime != 2000 || (s.st_mode & 07777) != 0604 || s.st_size != 6)
		return -3;
	close(fd);
	if (keep_xmkdirat(HERE, (long)d, 02750, 0, 0) || keep_xmkdirat(HERE, (long)d, 0750, 0, 0) != -1 || errno != EEXIST)
		return -4;
	if (keep_xsymlinkat((long)"life2", HERE, (long)l, 0, 0) || read_all(l) != -1 || errno != ENOENT)
		return -5;
	if (keep_xrename((long)a, (long)b, 0, 0, 0) || read_all(a) != -1 || read_all(l) < 6000)
		return -6;
	if (keep_xchmod((long)l, 0444, 0, 0, 0) || (mode_of(b, 0) & 0777) != 0444 || keep_xfchownat(HERE, (long)d, 0, 0, 0))
		return -7;
	snprintf(a, sizeof a, "%s/lifed/inner", directory);
	if (write_all(a, O_CREAT, "deep") != 4 || keep_xunlinkat(HERE, (long)d, AT_REMOVEDIR, 0, 0) != -1 || errno != ENOTEMPTY)
		return -8;
	sum += listed(d);
	if (keep_xunlinkat(HERE, (long)a, 0, 0, 0) || keep_xunlinkat(HERE, (long)d, AT_REMOVEDIR, 0, 0))
		return -9;
	if (keep_xunlinkat(HERE, (long)b, 0, 0, 0) || keep_xunlinkat(HERE, (long)l, 0, 0, 0) || mode_of(l, AT_SYMLINK_NOFOLLOW) != -1)
		return -10;
	return sum;
}

/* A layer's file is copied up, changed, hidden and made anew, seen by a process that has looked at it before. */
static long follows(const char *path)
{
	int to[2], from[2];
	char byte = 0;
	long sum = 0;
	if (pipe(to) || pipe(from))
		return -1;
	pid_t child = fork();
	if (child == 0) {
		long answers[5];
		for (int i = 0; i < 40; i++)
			size_of(path);
		for (int i = 0; i < 5; i++) {
			if (write(from[1], "r", 1) != 1 || read(to[0], &byte, 1) != 1)
				_exit(9);
			answers[i] = size_of(path);
		}
		long all = 0;
		for (int i = 0; i < 5; i++)
			all = all * 7 + answers[i] % 7 + 1;
		_exit(all % 200 + 200 > 255 ? all % 50 : all % 200);
	}
	for (int i = 0; i < 5; i++) {
		if (read(from[0], &byte, 1) != 1)
			break;
		switch (i) {
		case 0: sum += write_all(path, O_TRUNC, "abc"); break;
		case 1: sum += write_all(path, O_APPEND, "de"); break;
		case 2: sum += keep_xunlinkat(HERE, (long)path, 0, 0, 0); break;
		case 3: sum += write_all(path, O_CREAT, "x"); break;
		case 4: sum += write_all(path, O_TRUNC, "a layer"); break;
		}
		if (write(to[1], "g", 1) != 1)
			break;
	}
	int status = 0;
	waitpid(child, &status, 0);
	close(to[0]), close(to[1]), close(from[0]), close(from[1]);
	return sum * 1000 + WEXITSTATUS(status);
}

static volatile sig_atomic_t beats;
static void beat(int signal)
{
	struct stat s;
	beats++;
	fstatat(HERE, "/usr", &s, signal ? 0 : 0);
}

/* Registers and signals: sums that go wrong when the way through the handler loses something. */
static long keeps(void)
{
	struct itimerval timer = {{0, 300}, {0, 300}}, none = {{0, 0}, {0, 0}};
	struct stat s;
	long wrong = 0;
	signal(SIGALRM, beat);
	setitimer(ITIMER_REAL, &timer, NULL);
	double a = 1.5, b = 2.5, c = 3.5, d = 4.5;
	unsigned long r12 = 12, r13 = 13, r14 = 14;
	for (int i = 0; i < 20000; i++) {
		asm volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+r"(r12), "+r"(r13), "+r"(r14));
		long result = fstatat(HERE, i % 3 ? "/usr" : "/nowhere", &s, 0);
		asm volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+r"(r12), "+r"(r13), "+r"(r14));
		wrong += result != (i % 3 ? 0 : -1) || a != 1.5 || b != 2.5 || c != 3.5 || d != 4.5 || r12 + r13 + r14 != 39;
	}
	setitimer(ITIMER_REAL, &none, NULL);
	return wrong;
}

static void *thread(void *directory)
{
	char path[300];
	long wrong = 0;
	for (int i = 0; i < 300; i++) {
		snprintf(path, sizeof path, "%s/t%lx-%d", (char *)directory, (long)pthread_self(), i);
		wrong += write_all(path, O_CREAT | O_EXCL, "thread") != 6 || size_of(path) != 6;
		wrong += keep_xunlinkat(HERE, (long)path, 0, 0, 0) != 0 || size_of(path) != -1;
	}
	return (void *)wrong;
}

static long threads(const char *directory)
{
	pthread_t all[4];
	long wrong = 0;
	for (int i = 0; i < 4; i++)
		pthread_create(&all[i], NULL, thread, (void *)directory);
	for (int i = 0; i < 4; i++) {
		void *result;
		pthread_join(all[i], &result);
		wrong += (long)result;
	}
	return wrong;
}

/* Somebody else than root, in a child: what root may is not for it. */
static long others(const char *secret)
{
	pid_t child = fork();
	if (child == 0) {
		if (read_all(secret) < 0 || setgid(65534) || setuid(65534))
			_exit(1);
		_exit(read_all(secret) == -1 && errno == EACCES && keep_xaccess((long)secret, R_OK, 0, 0, 0) == -1 ? 42 : 2);
	}
	int status;
	waitpid(child, &status, 0);
	return WEXITSTATUS(status);
}

/* A root directory of its own. */
static long rooted(const char *directory)
{
	pid_t child = fork();
	if (child == 0) {
		if (read_all("/etc/passwd") < 0 || chroot(directory) || chdir("/"))
			_exit(1);
		_exit(read_all("/etc/passwd") == -1 && errno == ENOENT && mode_of("/..", 0) == mode_of("/", 0) ? 43 : 2);
	}
	int status;
	waitpid(child, &status, 0);
	return WEXITSTATUS(status);
}

/* A filter of the program's own, which knows one of the calls that the handler would make, and refuses the other. */
static long filtered(void)
{
	pid_t child = fork();
	if (child == 0) {
		struct sock_filter code[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 262, 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		};
		struct sock_fprog program = {4, code};
		if (read_all("/etc/passwd") < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &program))
			_exit(1);
		_exit(read_all("/etc/passwd") > 0 && keep_xaccess((long)"/etc/passwd", 0, 0, 0, 0) == 0 ? 44 : 2);
	}
	int status;
	waitpid(child, &status, 0);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int count, char **words)
{
	/* A directory of a layer's with `file` (7 bytes) and `link` to it, and one that may be written to. */
	const char *layer = words[1], *own = words[2];
	char file[300], link[300], missing[300], long_path[5000], secret[300];
	struct stat s;
	struct statx x;
	snprintf(file, sizeof file, "%s/file", layer);
	snprintf(link, sizeof link, "%s/link", layer);
	snprintf(missing, sizeof missing, "%s/missing", layer);
	snprintf(secret, sizeof secret, "%s/secret", own);
	memset(long_path, 'a', sizeof long_path);
	long_path[4999] = 0;
	if (count < 3)
		return 2;

	CASE("stat", mode_of(file, 0));
	CASE("lstat-link", mode_of(link, AT_SYMLINK_NOFOLLOW));
	CASE("stat-link", mode_of(link, 0));
	CASE("stat-missing", mode_of(missing, 0));
	CASE("stat-beneath-file", mode_of(strcat(strcpy(secret, file), "/x"), 0));
	snprintf(secret, sizeof secret, "%s/secret", own);
	CASE("stat-slash", mode_of(strcat(strcpy(long_path, file), "/"), 0));
	CASE("stat-dots", mode_of(strcat(strcpy(long_path, layer), "/./../../etc/passwd"), 0) < 0);
	memset(long_path, 'a', 4999);
	CASE("stat-long", fstatat(HERE, long_path, &s, 0));
	CASE("stat-null", fstatat(HERE, 0, &s, 0));
	CASE("stat-bad-path", fstatat(HERE, 8, &s, 0));
	CASE("stat-bad-room", fstatat(HERE, file, 8, 0));
	CASE("stat-flags", fstatat(HERE, file, &s, 0x8000000));
	CASE("stat-no-directory", fstatat(77, "x", &s, 0));
	CASE("fstat-closed", keep_xfstat(77, (long)&s, 0, 0, 0));
	CASE("proc", mode_of("/proc/self/status", 0) & 0777);
	CASE("dev", mode_of("/dev/null", 0) & 0170666);
	CASE("hosts", size_of("/etc/hosts") > 0);
	CASE("lstat", keep_xlstat((long)link, (long)&s, 0, 0, 0) + (s.st_mode & S_IFMT));
	CASE("statx", keep_xstatx(HERE, (long)link, 0, 0x7ff, (long)&x) + x.stx_size + x.stx_uid);
	CASE("access", keep_xaccess((long)file, R_OK | W_OK, 0, 0, 0));
	CASE("access-run", keep_xaccess((long)file, X_OK, 0, 0, 0));
	CASE("readlink", keep_xreadlinkat(HERE, (long)link, (long)long_path, 100, 0));
	CASE("readlink-file", keep_xreadlinkat(HERE, (long)file, (long)long_path, 100, 0));
	CASE("getxattr", keep_xgetxattr((long)file, (long)"system.posix_acl_access", (long)long_path, 100, 0));
	CASE("read", read_all(file));
	CASE("read-link", read_all(link));
	CASE("read-missing", read_all(missing));
	CASE("read-directory", write_all(layer, 0, "x"));
	CASE("nofollow", openat(HERE, link, O_RDONLY | O_NOFOLLOW, 0));
	CASE("list", listed(layer));
	CASE("root", (mode_of("/", 0) & 0xfffffff) + (mode_of("/", AT_SYMLINK_NOFOLLOW) & 0xfffffff));
	CASE("number", stays(layer) + 2 * stays("/") + 4 * stays(own));
	CASE("cwd", keep_xgetcwd((long)long_path, 4000, 0, 0, 0) + long_path[0]);
	CASE("cwd-short", keep_xgetcwd((long)long_path, 1, 0, 0, 0));
	CASE("cwd-bad-room", keep_xgetcwd(8, 4000, 0, 0, 0));
	CASE("list-bad-room", keep_xgetdents(openat(HERE, "/", O_RDONLY | O_DIRECTORY, 0), 8, 4096, 0, 0));
	CASE("list-slash", listed(strcat(strcpy(long_path, layer), "/")) == listed(layer));
	CASE("list-link", listed(strcat(strcpy(long_path, link), "/")));
	CASE("list-file", listed(strcat(strcpy(long_path, file), "/")));
	CASE("list-missing", listed(strcat(strcpy(long_path, missing), "//")));
	CASE("list-root", listed("/") > 0);
	CASE("list-proc", listed("/proc/self/task") > 0);
	CASE("truncate", write_all(file, O_TRUNC, "layer's"));
	CASE("size", size_of(file));
	CASE("make-in-layer", lives(layer));
	CASE("make", lives(own));
	if (chdir(own))
		return 3;
	CASE("cwd-own", keep_xgetcwd((long)long_path, 4000, 0, 0, 0) + long_path[1]);
	CASE("number-after", stays(layer) + 2 * stays("/") + 4 * stays(own));
	CASE("make-here", lives("."));
	mkdir("one", 0755), mkdir("one/two", 0755), mkdir("one/two/three", 0755);
	CASE("make-deep", lives("one/two/three"));
	CASE("make-above", lives("one/two/three/../.."));
	CASE("follows", follows(file));
	CASE("keeps", keeps());
	CASE("threads", threads(own));
	write_all(secret, O_CREAT, "secret");
	chmod(secret, 0600);
	CASE("secret", read_all(secret));
	CASE("others", others(secret));
	CASE("rooted", rooted(own));
	CASE("filtered", filtered());
	return failed;
}
