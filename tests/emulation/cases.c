/* System calls and what they answer, one line a check: run as a container's root where
 * the kernel knows many users, and where they are emulated. Equal lines are the proof.
 *
 * A case runs in a child of its own, in an empty directory, as root; "CASE.CHECK: value" or
 * "CASE.CHECK: ERRNO" is printed for every check. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *current;
static int number;

static void say(const char *what, long value, int error) {
    if (value < 0 && error)
        printf("%s.%s: %s\n", current, what, strerrorname_np(error));
    else
        printf("%s.%s: %ld\n", current, what, value);
    fflush(stdout);
}

/* One check: the call's own answer. */
#define CHECK(what, call) do { errno = 0; long value_ = (call); say(what, value_, errno); } while (0)

static void tell(const char *what, const char *format, ...) {
    va_list list;
    printf("%s.%s: ", current, what);
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf("\n");
    fflush(stdout);
}

static void whose(const char *what, const char *path) {
    struct stat s;
    if (lstat(path, &s)) say(what, -1, errno);
    else tell(what, "%u:%u %o", s.st_uid, s.st_gid, s.st_mode);
}

static void whoami(const char *what) {
    uid_t r, e, s;
    gid_t gr, ge, gs;
    getresuid(&r, &e, &s);
    getresgid(&gr, &ge, &gs);
    tell(what, "%u %u %u / %u %u %u", r, e, s, gr, ge, gs);
}

static void capabilities(const char *what) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    if (syscall(SYS_capget, &header, data)) say(what, -1, errno);
    else tell(what, "p=%08x e=%08x i=%08x", data[0].permitted, data[0].effective, data[0].inheritable);
}

static int make(const char *path, mode_t mode) {
    int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
    if (fd < 0) return -1;
    fchmod(fd, mode);
    close(fd);
    return 0;
}

static void become(uid_t uid, gid_t gid) {
    if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid)) tell("become", "failed %d", errno);
}

/* --- owners --- */

static void chown_basic(void) {
    make("f", 0644);
    CHECK("chown", chown("f", 12, 34));
    whose("both", "f");
    CHECK("uid", chown("f", 56, -1));
    whose("uid_only", "f");
    CHECK("gid", chown("f", -1, 78));
    whose("gid_only", "f");
    CHECK("neither", chown("f", -1, -1));
    whose("after_neither", "f");
    CHECK("largest", chown("f", 65000, 65000));
    whose("after_largest", "f");
    CHECK("root", chown("f", 0, 0));
    whose("after_root", "f");
    CHECK("missing", chown("g", 1, 1));
    CHECK("empty", chown("", 1, 1));
    CHECK("through_file", chown("f/x", 1, 1));
    CHECK("bad_pointer", syscall(SYS_chown, 1L, 1, 1));
}

static void chown_kinds(void) {
    mkdir("d", 0750);
    symlink("f", "l");
    symlink("nowhere", "dangling");
    mkfifo("p", 0600);
    make("f", 0600);
    CHECK("dir", chown("d", 1, 2));
    CHECK("fifo", chown("p", 3, 4));
    CHECK("lchown", lchown("l", 5, 6));
    CHECK("follow", chown("l", 7, 8));
    CHECK("dangling", chown("dangling", 1, 1));
    CHECK("ldangling", lchown("dangling", 9, 9));
    whose("d", "d"); whose("p", "p"); whose("l", "l"); whose("f", "f"); whose("dangling_is", "dangling");
}

static void chown_fd(void) {
    make("f", 0644);
    mkdir("d", 0755);
    make("d/g", 0644);
    int fd = open("f", O_RDONLY), dir = open("d", O_RDONLY | O_DIRECTORY), path = open("f", O_PATH);
    CHECK("fchown", fchown(fd, 11, 12));
    CHECK("bad", fchown(999, 1, 1));
    CHECK("negative", fchown(-1, 1, 1));
    CHECK("o_path", fchown(path, 1, 1));
    CHECK("at", fchownat(dir, "g", 13, 14, 0));
    CHECK("at_empty", fchownat(dir, "", 15, 16, AT_EMPTY_PATH));
    CHECK("at_empty_unasked", fchownat(dir, "", 1, 1, 0));
    CHECK("at_o_path", fchownat(path, "", 17, 18, AT_EMPTY_PATH));
    CHECK("at_flags", fchownat(dir, "g", 1, 1, 0x40000000));
    CHECK("at_notdir", fchownat(fd, "g", 1, 1, 0));
    CHECK("at_badfd", fchownat(998, "g", 1, 1, 0));
    struct stat s;
    fstat(fd, &s);
    tell("fstat", "%u:%u", s.st_uid, s.st_gid);
    whose("g", "d/g"); whose("d", "d");
    unlink("f");
    fstat(fd, &s);
    tell("unlinked", "%u:%u %lu", s.st_uid, s.st_gid, (long)s.st_nlink);
    CHECK("unlinked_chown", fchown(fd, 21, 22));
    fstat(fd, &s);
    tell("unlinked_again", "%u:%u", s.st_uid, s.st_gid);
}

static void chown_marks(void) {
    make("f", 06755);
    chown("f", 1, 1);
    whose("cleared", "f");
    chmod("f", 06755);
    whose("set_again", "f");
    make("n", 02644);
    chown("n", 1, 1);
    whose("without_x", "n");
    mkdir("d", 0755);
    chmod("d", 06755);
    chown("d", 1, 1);
    whose("dir_kept", "d");
}

static void names(void) {
    make("a", 0644);
    chown("a", 3, 4);
    CHECK("link", link("a", "b"));
    CHECK("rename", rename("a", "c"));
    whose("b", "b"); whose("c", "c");
    make("x", 0600);
    chown("x", 5, 6);
    CHECK("over", rename("c", "x"));
    whose("x", "x");
    CHECK("unlink_one", unlink("x"));
    whose("other", "b");
    mkdir("d", 0700);
    chown("d", 7, 8);
    CHECK("rename_dir", rename("d", "e"));
    whose("e", "e");
    make("l", 0600); make("r", 0600);
    chown("l", 1, 1); chown("r", 2, 2);
    CHECK("exchange", renameat2(AT_FDCWD, "l", AT_FDCWD, "r", RENAME_EXCHANGE));
    whose("l", "l"); whose("r", "r");
    CHECK("noreplace", renameat2(AT_FDCWD, "l", AT_FDCWD, "r", RENAME_NOREPLACE));
    CHECK("rmdir", rmdir("e"));
    CHECK("unlink_dir", (mkdir("q", 0700), unlink("q")));
    CHECK("rmdir_file", rmdir("l"));
    CHECK("unlink_none", unlink("zzz"));
}

static void reuse(void) {
    int strangers = 0;
    for (int i = 0; i < 200; i++) {
        make("f", 0600);
        chown("f", 99, 99);
        unlink("f");
        make("g", 0600);
        struct stat s;
        stat("g", &s);
        strangers += s.st_uid != 0;
        unlink("g");
    }
    tell("strangers", "%d", strangers);
}

static void stats(void) {
    make("f", 0640);
    chown("f", 42, 43);
    struct statx x;
    CHECK("statx", statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &x));
    tell("statx_is", "%u:%u %o %lu", x.stx_uid, x.stx_gid, x.stx_mode, (long)x.stx_size);
    int fd = open("f", O_RDWR);
    write(fd, "12345", 5);
    CHECK("statx_fd", statx(fd, "", AT_EMPTY_PATH, STATX_ALL, &x));
    tell("statx_fd_is", "%u:%u %lu %lu", x.stx_uid, x.stx_gid, (long)x.stx_size, (long)x.stx_nlink);
    struct stat s, t;
    CHECK("fstatat", fstatat(AT_FDCWD, "f", &s, 0));
    tell("fstatat_is", "%u:%u %ld", s.st_uid, s.st_gid, (long)s.st_size);
    fstat(fd, &t);
    tell("same", "%d", s.st_ino == t.st_ino && s.st_dev == t.st_dev && s.st_mtim.tv_nsec == t.st_mtim.tv_nsec
        && s.st_ino == x.stx_ino && s.st_dev == makedev(x.stx_dev_major, x.stx_dev_minor) && s.st_blocks == t.st_blocks);
    CHECK("stat_none", stat("none", &s));
    CHECK("stat_empty", stat("", &s));
    CHECK("fstat_bad", fstat(997, &s));
    CHECK("stat_fault", syscall(SYS_newfstatat, AT_FDCWD, "f", 8L, 0));
    CHECK("self", stat("/proc/self", &s));
    tell("self_is", "%u:%u", s.st_uid, s.st_gid);
    fd = open("/", O_RDONLY);
    CHECK("dot", fstatat(fd, ".", &s, 0));
    symlink("f", "l");
    whose("l", "l");
    stat("l", &s);
    tell("l_follow", "%u:%u", s.st_uid, s.st_gid);
    CHECK("long", (({ char p[5000]; memset(p, 'a', 4999); p[4999] = 0; stat(p, &s); })));
}

/* --- ids --- */

static void ids_root(void) {
    whoami("start");
    CHECK("setuid", setuid(1000));
    whoami("after");
    CHECK("back", setuid(0));
    CHECK("seteuid_back", seteuid(0));
    CHECK("other", setuid(1001));
    CHECK("same", setuid(1000));
    CHECK("setgid", setgid(5));
    gid_t g[2] = {1, 2};
    CHECK("setgroups", setgroups(2, g));
    CHECK("getuid", getuid()); CHECK("geteuid", geteuid()); CHECK("getgid", getgid());
}

static void ids_effective(void) {
    CHECK("seteuid", seteuid(1000));
    whoami("aside");
    capabilities("aside_caps");
    CHECK("chown", (make("f", 0600), chown("f", 1, 1)));
    CHECK("back", seteuid(0));
    whoami("again");
    capabilities("again_caps");
    CHECK("setegid", setegid(7));
    whoami("egid");
    CHECK("setreuid", setreuid(5, 6));
    whoami("re");
    CHECK("swap", setreuid(6, 5));
    whoami("swapped");
    CHECK("zero", setreuid(0, -1));
}

static void ids_three(void) {
    CHECK("res", setresuid(1, 2, 3));
    whoami("three");
    CHECK("rotate", setresuid(3, 1, 2));
    whoami("rotated");
    CHECK("fourth", setresuid(4, -1, -1));
    CHECK("none", setresuid(-1, -1, -1));
    CHECK("resgid", setresgid(1, -1, -1));
    whoami("end");
}

static void ids_groups(void) {
    gid_t g[4] = {0}, set[3] = {10, 20, 30};
    CHECK("set", setgroups(3, set));
    CHECK("count", getgroups(0, NULL));
    CHECK("get", getgroups(4, g));
    tell("are", "%u %u %u", g[0], g[1], g[2]);
    CHECK("small", getgroups(2, g));
    CHECK("negative", getgroups(-1, g));
    CHECK("none", setgroups(0, NULL));
    CHECK("count_none", getgroups(0, NULL));
    CHECK("many", setgroups(70000, set));
    CHECK("regid", setregid(8, 9));
    whoami("groups_end");
}

static void ids_fs(void) {
    CHECK("fsuid", setfsuid(1000));
    CHECK("fsuid_is", setfsuid(-1));
    make("f", 0600);
    whose("made", "f");
    CHECK("fsgid", setfsgid(1001));
    CHECK("back", setfsuid(0));
    mkdir("d", 0700);
    whose("dir", "d");
    CHECK("bad", syscall(SYS_setuid, -1));
    CHECK("bad_gid", syscall(SYS_setgid, -1));
}

static void ids_inherit(void) {
    become(1000, 1001);
    pid_t child = fork();
    if (!child) { whoami("fork"); _exit(0); }
    waitpid(child, NULL, 0);
    child = vfork();
    if (!child) { execl("/cases", "cases", "--whoami", "exec", NULL); _exit(1); }
    int status;
    waitpid(child, &status, 0);
    tell("vfork_exec", "%d", WEXITSTATUS(status));
}

static void *thread_body(void *unused) { (void)unused; whoami("thread"); return NULL; }

static void ids_threads(void) {
    pthread_t thread;
    setuid(1000);
    int made = pthread_create(&thread, NULL, thread_body, NULL);
    pthread_join(thread, NULL);
    tell("made", "%d", made);
    whoami("main");
}

static void ids_shown(void) {
    become(1000, 1001);
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "Uid", 3) || !strncmp(line, "Gid", 3) || !strncmp(line, "CapEff", 6) || !strncmp(line, "CapPrm", 6) || !strncmp(line, "CapBnd", 6))
            tell("status", "%s", line);
    }
    struct stat s;
    stat("/proc/self", &s);
    tell("proc", "%u:%u", s.st_uid, s.st_gid);
    struct rlimit limit;
    CHECK("locks", getrlimit(RLIMIT_LOCKS, &limit));
    tell("unlimited", "%d %d", limit.rlim_cur == RLIM_INFINITY, limit.rlim_max == RLIM_INFINITY);
}

/* --- capabilities --- */

static void caps(void) {
    capabilities("root");
    CHECK("keepcaps_get", prctl(PR_GET_KEEPCAPS));
    CHECK("keepcaps", prctl(PR_SET_KEEPCAPS, 1));
    CHECK("keepcaps_on", prctl(PR_GET_KEEPCAPS));
    become(1000, 1000);
    capabilities("kept");
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{.permitted = 1, .effective = 1}};
    CHECK("capset", syscall(SYS_capset, &header, data));
    capabilities("chown_only");
    CHECK("chown", (make("/tmp/kept", 0600), chown("/tmp/kept", 9, 9)));
    whose("kept_file", "/tmp/kept");
    data[0].permitted = 3;
    CHECK("more", syscall(SYS_capset, &header, data));
    header.version = 7;
    CHECK("version", syscall(SYS_capget, &header, data));
    tell("version_is", "%x", header.version);
    CHECK("keepcaps_bad", prctl(PR_SET_KEEPCAPS, 2));
}

static void caps_bounding(void) {
    CHECK("read", prctl(PR_CAPBSET_READ, CAP_CHOWN));
    CHECK("read_lacking", prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN));
    CHECK("drop", prctl(PR_CAPBSET_DROP, CAP_CHOWN));
    CHECK("dropped", prctl(PR_CAPBSET_READ, CAP_CHOWN));
    CHECK("read_bad", prctl(PR_CAPBSET_READ, 99));
    CHECK("ambient_raise", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
    CHECK("ambient_is", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0));
    CHECK("ambient_clear", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    CHECK("secure", prctl(PR_GET_SECUREBITS));
    become(1000, 1000);
    CHECK("drop_user", prctl(PR_CAPBSET_DROP, CAP_KILL));
}

static void caps_missing(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    make("f", 0600);
    syscall(SYS_capget, &header, data);
    data[0].effective &= ~(1u << CAP_CHOWN | 1u << CAP_MKNOD | 1u << CAP_SETUID | 1u << CAP_SETFCAP | 1u << CAP_FOWNER);
    CHECK("drop", syscall(SYS_capset, &header, data));
    CHECK("chown", chown("f", 1, 1));
    CHECK("chgrp", chown("f", -1, 77));
    CHECK("own_group", chown("f", -1, 0));
    CHECK("setuid", setuid(5));
    CHECK("setgid", setgid(5));
    data[0].effective = data[0].permitted;
    CHECK("again", syscall(SYS_capset, &header, data));
    CHECK("chown_again", chown("f", 1, 1));
}

/* --- what a user may --- */

static void user_setup(void) {
    chmod(".", 0755);
    make("secret", 0600);
    make("public", 0644);
    make("group", 0640); chown("group", 0, 2000);
    make("theirs", 0600); chown("theirs", 1001, 1001);
    make("mine", 0600); chown("mine", 1000, 1000);
    make("mine_none", 0000); chown("mine_none", 1000, 1000);
    make("prog", 0744);
    mkdir("closed", 0700); make("closed/in", 0666);
    mkdir("open", 0777); make("open/roots", 0644);
    mkdir("sticky", 0755); chmod("sticky", 01777); make("sticky/roots", 0666);
    mkdir("own", 0755); chown("own", 1000, 1000);
    mkdir("searchable", 0711); make("searchable/in", 0644);
    gid_t g[1] = {2000};
    setgroups(1, g);
    setresgid(1000, 1000, 1000);
    setresuid(1000, 1000, 1000);
}

static long opens(const char *path, int flags) {
    int fd = open(path, flags, 0644);
    if (fd < 0) return -1;
    close(fd);
    return 0;
}

static void user_open(void) {
    user_setup();
    CHECK("secret", opens("secret", O_RDONLY));
    CHECK("secret_w", opens("secret", O_WRONLY));
    CHECK("public", opens("public", O_RDONLY));
    CHECK("public_w", opens("public", O_WRONLY));
    CHECK("public_trunc", opens("public", O_RDONLY | O_TRUNC));
    CHECK("public_creat", opens("public", O_RDONLY | O_CREAT));
    CHECK("group", opens("group", O_RDONLY));
    CHECK("group_w", opens("group", O_RDWR));
    CHECK("theirs", opens("theirs", O_RDONLY));
    CHECK("mine", opens("mine", O_RDWR));
    CHECK("mine_none", opens("mine_none", O_RDONLY));
    CHECK("closed", opens("closed", O_RDONLY));
    CHECK("closed_in", opens("closed/in", O_RDONLY));
    CHECK("searchable", opens("searchable", O_RDONLY));
    CHECK("searchable_in", opens("searchable/in", O_RDONLY));
    CHECK("new_here", opens("new", O_CREAT | O_WRONLY));
    CHECK("new_excl", opens("public", O_CREAT | O_EXCL | O_WRONLY));
    CHECK("new_open", opens("open/new", O_CREAT | O_WRONLY));
    CHECK("new_own", opens("own/new", O_CREAT | O_EXCL | O_RDWR));
    CHECK("missing", opens("missing", O_RDONLY));
    CHECK("tmpfile", opens("own", O_TMPFILE | O_RDWR));
    CHECK("tmpfile_closed", opens("closed", O_TMPFILE | O_RDWR));
    CHECK("noatime", opens("public", O_RDONLY | O_NOATIME));
    CHECK("path", opens("secret", O_PATH));
    whose("new_own_is", "own/new"); whose("new_open_is", "open/new");
    CHECK("chdir_closed", chdir("closed"));
    CHECK("chdir_searchable", chdir("searchable"));
}

static void user_change(void) {
    user_setup();
    CHECK("chmod_roots", chmod("public", 0666));
    CHECK("chmod_mine", chmod("mine", 04755));
    CHECK("chmod_sgid", chmod("mine", 02755));
    whose("mine_is", "mine");
    CHECK("chown_mine", chown("mine", 1001, -1));
    CHECK("chgrp_mine", chown("mine", -1, 2000));
    CHECK("chgrp_foreign", chown("mine", -1, 3000));
    whose("mine_now", "mine");
    CHECK("chown_self", chown("mine", 1000, 1000));
    CHECK("chown_roots", chown("public", 1000, 1000));
    CHECK("truncate", truncate("public", 0));
    CHECK("truncate_mine", truncate("mine", 0));
    CHECK("utimes_roots", utimensat(AT_FDCWD, "public", NULL, 0));
    struct timespec t[2] = {{1, 0}, {1, 0}};
    CHECK("utimes_explicit", utimensat(AT_FDCWD, "public", t, 0));
    CHECK("utimes_mine", utimensat(AT_FDCWD, "mine", t, 0));
    CHECK("chroot", chroot("."));
    CHECK("mknod_dev", mknod("own/n", S_IFCHR | 0666, makedev(1, 3)));
    CHECK("mknod_fifo", mknod("own/p", S_IFIFO | 0666, 0));
    whose("fifo_is", "own/p");
}

static void user_names(void) {
    user_setup();
    CHECK("mkdir", mkdir("new", 0755));
    CHECK("mkdir_exists", mkdir("own", 0755));
    CHECK("mkdir_own", mkdir("own/d", 0755));
    CHECK("symlink", symlink("x", "new"));
    CHECK("symlink_own", symlink("x", "own/l"));
    CHECK("link_own", link("public", "own/hard"));
    CHECK("link_here", link("public", "hard"));
    CHECK("unlink", unlink("public"));
    CHECK("unlink_open", unlink("open/roots"));
    CHECK("unlink_sticky", unlink("sticky/roots"));
    CHECK("unlink_closed", unlink("closed/in"));
    CHECK("unlink_missing", unlink("missing"));
    CHECK("rename_out", rename("public", "own/p"));
    CHECK("rename_sticky", rename("sticky/roots", "sticky/x"));
    make("sticky/ours", 0644);
    CHECK("rename_ours", rename("sticky/ours", "sticky/ours2"));
    CHECK("unlink_ours", unlink("sticky/ours2"));
    CHECK("rmdir", rmdir("closed"));
    CHECK("rmdir_own", rmdir("own/d"));
    whose("l", "own/l");
}

static void user_access(void) {
    user_setup();
    CHECK("r_secret", access("secret", R_OK));
    CHECK("f_secret", access("secret", F_OK));
    CHECK("r_public", access("public", R_OK));
    CHECK("w_public", access("public", W_OK));
    CHECK("x_prog", access("prog", X_OK));
    CHECK("in_closed", access("closed/in", F_OK));
    CHECK("own", access("own", R_OK | W_OK | X_OK));
    CHECK("none", access("none", F_OK));
    CHECK("bad", access("public", 99));
    CHECK("eaccess", faccessat(AT_FDCWD, "public", W_OK, AT_EACCESS));
}

static void root_access(void) {
    make("none", 0000);
    make("x", 0100);
    chown("x", 5, 5);
    CHECK("r", access("none", R_OK)); CHECK("w", access("none", W_OK)); CHECK("x", access("none", X_OK));
    CHECK("x_other", access("x", X_OK));
    CHECK("open", opens("none", O_RDWR));
    seteuid(1000);
    CHECK("real_r", access("none", R_OK));
    CHECK("effective_r", faccessat(AT_FDCWD, "none", R_OK, AT_EACCESS));
}

static void user_signal(void) {
    pid_t root = fork();
    if (!root) { pause(); _exit(0); }
    become(1000, 1000);
    pid_t own = fork();
    if (!own) { pause(); _exit(0); }
    CHECK("root", kill(root, 0));
    CHECK("own", kill(own, 0));
    CHECK("none", kill(999999, 0));
    CHECK("init", kill(1, SIGTERM));
    CHECK("own_kill", kill(own, SIGKILL));
    waitpid(own, NULL, 0);
}

/* --- new files --- */

static void new_files(void) {
    umask(027);
    mkdir("sg", 0755); chown("sg", 3, 4); chmod("sg", 02775);
    make("sg/f", 0644); mkdir("sg/d", 0755); symlink("x", "sg/l"); mkfifo("sg/p", 0666);
    whose("f", "sg/f"); whose("d", "sg/d"); whose("l", "sg/l"); whose("p", "sg/p");
    mkdir("pub", 0777); chmod("pub", 0777);
    become(1000, 1001);
    int fd = open("pub/a", O_CREAT | O_WRONLY | O_APPEND, 0666);
    CHECK("append", write(fd, "x", 1));
    CHECK("cloexec", fcntl(fd, F_GETFD));
    CHECK("flags", fcntl(fd, F_GETFL) & (O_APPEND | O_ACCMODE));
    whose("umask", "pub/a");
    fd = open("pub/b", O_CREAT | O_RDONLY | O_CLOEXEC, 0400);
    CHECK("cloexec_on", fcntl(fd, F_GETFD));
    whose("readonly", "pub/b");
    fd = creat("pub/c", 0666);
    CHECK("creat", fcntl(fd, F_GETFL) & O_ACCMODE);
    mkdir("pub/d", 0777);
    whose("mkdir", "pub/d");
    symlink("pub/e", "link_to_new");
    struct sockaddr_un address = {AF_UNIX, "pub/socket"};
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK("bind", bind(s, (void *)&address, sizeof address));
    whose("socket", "pub/socket");
    CHECK("bind_again", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, sizeof address));
    strcpy(address.sun_path, "refused");
    CHECK("bind_refused", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, sizeof address));
    chmod("pub/socket", 0700);
    whose("socket_mode", "pub/socket");
}

static void devices(void) {
    CHECK("chr", mknod("n", S_IFCHR | 0666, makedev(1, 3)));
    CHECK("blk", mknod("b", S_IFBLK | 0600, makedev(8, 300)));
    CHECK("exists", mknod("n", S_IFCHR, 0));
    struct stat s;
    if (!lstat("n", &s)) tell("n", "%o %u:%u %lu", s.st_mode, major(s.st_rdev), minor(s.st_rdev), (long)s.st_size);
    if (!lstat("b", &s)) tell("b", "%o %u:%u", s.st_mode, major(s.st_rdev), minor(s.st_rdev));
    CHECK("chmod", chmod("n", 0640));
    if (!lstat("n", &s)) tell("n_mode", "%o", s.st_mode);
    CHECK("chown", chown("b", 4, 5));
    whose("b_is", "b");
    int fd = open("n", O_RDWR);
    CHECK("write", write(fd, "abc", 3));
    CHECK("read", read(fd, (char[4]){0}, 4));
    CHECK("unlink", unlink("n"));
    CHECK("regular", mknod("r", S_IFREG | 0600, 0));
    CHECK("odd", mknod("odd", 0150000, 0));
}

/* --- attributes --- */

static void attributes(void) {
    make("f", 0755);
    unsigned char value[20] = {1, 0, 0, 2, 0, 0x20};
    char got[64];
    CHECK("set", setxattr("f", "security.capability", value, 20, 0));
    CHECK("size", getxattr("f", "security.capability", NULL, 0));
    CHECK("get", getxattr("f", "security.capability", got, sizeof got));
    tell("same", "%d", !memcmp(got, value, 20));
    CHECK("small", getxattr("f", "security.capability", got, 3));
    CHECK("create", setxattr("f", "security.capability", value, 20, XATTR_CREATE));
    CHECK("bad", setxattr("f", "security.capability", "x", 1, 0));
    CHECK("list", listxattr("f", got, sizeof got));
    tell("listed", "%d", !strcmp(got, "security.capability"));
    CHECK("chown", chown("f", 1, 1));
    CHECK("gone", getxattr("f", "security.capability", got, sizeof got));
    CHECK("remove_none", removexattr("f", "security.capability"));
    setxattr("f", "security.capability", value, 20, 0);
    CHECK("remove", removexattr("f", "security.capability"));
    CHECK("trusted", setxattr("f", "trusted.x", "1", 1, 0));
    CHECK("user", setxattr("f", "user.x", "1", 1, 0));
    CHECK("user_get", getxattr("f", "user.x", got, sizeof got));
    become(1000, 1000);
    CHECK("set_user", setxattr("f", "security.capability", value, 20, 0));
}

static void access_lists(void) {
    make("f", 0640);
    chmod(".", 0755);
    struct { unsigned version; struct { unsigned short tag, perm; unsigned id; } e[5]; } list = {
        2, {{1, 6, -1}, {2, 6, 1000}, {4, 4, -1}, {16, 6, -1}, {32, 0, -1}}};
    CHECK("set", setxattr("f", "system.posix_acl_access", &list, sizeof list, 0));
    whose("mode", "f");
    char got[128];
    CHECK("get", getxattr("f", "system.posix_acl_access", got, sizeof got));
    tell("same", "%d", !memcmp(got, &list, sizeof list));
    chmod("f", 0600);
    CHECK("get_after", getxattr("f", "system.posix_acl_access", got, sizeof got));
    tell("mask", "%d", got[4 + 3 * 8 + 2]);
    chmod("f", 0660);
    mkdir("d", 0755);
    CHECK("default_file", setxattr("f", "system.posix_acl_default", &list, sizeof list, 0));
    CHECK("none", getxattr("d", "system.posix_acl_access", got, sizeof got));
    CHECK("bad", setxattr("f", "system.posix_acl_access", "xyz", 3, 0));
    pid_t child = fork();
    if (!child) {
        become(1000, 1000);
        CHECK("named", opens("f", O_RDWR));
        _exit(0);
    }
    waitpid(child, NULL, 0);
    child = fork();
    if (!child) {
        become(1001, 1001);
        CHECK("unnamed", opens("f", O_RDONLY));
        _exit(0);
    }
    waitpid(child, NULL, 0);
    CHECK("remove", removexattr("f", "system.posix_acl_access"));
    whose("mode_after", "f");
}

/* What is made in a directory with a default list: the umask has no say, directories hand it on. */
static void default_lists(void) {
    struct { unsigned version; struct { unsigned short tag, perm; unsigned id; } e[5]; } list = {
        2, {{1, 7, -1}, {2, 6, 1000}, {4, 5, -1}, {16, 7, -1}, {32, 5, -1}}};
    char got[128];
    mkdir("d", 0755);
    chmod("d", 0777);
    umask(077);
    CHECK("set", setxattr("d", "system.posix_acl_default", &list, sizeof list, 0));
    make("d/f", 0666);
    mkdir("d/d", 0775);
    mkdir("d/d/d", 0700);
    symlink("f", "d/l");
    mknod("d/p", S_IFIFO | 0640, 0);
    const char *all[] = {"d/f", "d/d", "d/d/d", "d/l", "d/p"};
    for (int i = 0; i < 5; i++) {
        whose(all[i], all[i]);
        CHECK(all[i], lgetxattr(all[i], "system.posix_acl_access", got, sizeof got));
        CHECK(all[i], lgetxattr(all[i], "system.posix_acl_default", got, sizeof got));
    }
    CHECK("own", getxattr("d/f", "system.posix_acl_access", got, sizeof got));
    tell("own_user", "%d", got[4 + 2]);
    tell("own_mask", "%d", got[4 + 3 * 8 + 2]);
    become(1001, 1001);
    make("d/of_user", 0666);
    whose("of_user", "d/of_user");
    CHECK("of_user", getxattr("d/of_user", "system.posix_acl_access", got, sizeof got));
}

/* --- peers, programs, oddities --- */

static void peers(void) {
    int pair[2];
    struct ucred peer;
    socklen_t size = sizeof peer;
    unlink("s");
    struct sockaddr_un address = {AF_UNIX, "s"};
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(server, (void *)&address, sizeof address);
    chmod("s", 0777);
    chmod(".", 0755);
    listen(server, 1);
    pid_t child = fork();
    if (!child) {
        become(1000, 1001);
        int client = socket(AF_UNIX, SOCK_STREAM, 0);
        CHECK("connect", connect(client, (void *)&address, sizeof address));
        CHECK("server", getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size));
        tell("server_is", "%u:%u", peer.uid, peer.gid);
        pause();
    }
    int client = accept(server, NULL, NULL);
    struct pollfd wait = {client, POLLIN, 0};
    poll(&wait, 1, 50);
    CHECK("client", getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size));
    tell("client_is", "%u:%u %d", peer.uid, peer.gid, peer.pid == child);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    CHECK("pair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    CHECK("pair_cred", getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &peer, &size));
}

static void copy(const char *path, mode_t mode) {
    int from = open("/cases", O_RDONLY), to = open(path, O_CREAT | O_WRONLY, 0755);
    char block[65536];
    ssize_t n;
    while ((n = read(from, block, sizeof block)) > 0) if (write(to, block, n) != n) abort();
    close(from); close(to);
    chmod(path, mode);
}

static void run(const char *path, const char *label) {
    pid_t child = fork();
    if (!child) {
        execl(path, path, "--whoami", label, NULL);
        say(label, -1, errno);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void programs(void) {
    chmod(".", 0755);
    copy("plain", 0755);
    copy("noexec", 0644);
    copy("ours", 0700);
    copy("capable", 0755);
    unsigned char value[20] = {1, 0, 0, 2, 1};
    setxattr("capable", "security.capability", value, 20, 0);
    copy("suid", 04755);
    copy("sgid", 0755); chown("sgid", 0, 77); chmod("sgid", 02755);
    copy("suid_other", 0755); chown("suid_other", 33, 34); chmod("suid_other", 06755);
    CHECK("root_noexec", execl("noexec", "noexec", NULL));
    run("./suid_other", "root_suid_other");
    become(1000, 1001);
    run("./plain", "plain");
    run("./noexec", "noexec");
    run("./ours", "ours");
    run("./missing", "missing");
    run("./suid", "suid"); run("./sgid", "sgid"); run("./suid_other", "suid_other"); run("./capable", "capable");
    CHECK("nnp_get", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    CHECK("nnp", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK("nnp_set", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    run("./suid", "suid_nnp");
}

static void signals_during(void) {
    /* A call that waits for its answer is neither lost nor made twice by signals. */
    struct itimerval timer = {{0, 200}, {0, 200}};
    signal(SIGALRM, SIG_IGN);
    struct sigaction action = {.sa_handler = (void (*)(int))whoami, .sa_flags = 0};
    (void)action;
    setitimer(ITIMER_REAL, &timer, NULL);
    int bad = 0;
    for (int i = 0; i < 300; i++) {
        bad += mkdir("d", 0700) != 0;
        bad += chown("d", 1 + i % 9, 1) != 0;
        bad += rmdir("d") != 0;
    }
    tell("failures", "%d", bad);
}

static void killed_during(void) {
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (!child) for (;;) { make("k", 0600); chown("k", 5, 5); unlink("k"); }
        usleep(200);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    unlink("k");
    CHECK("alive", (make("after", 0600), chown("after", 1, 1)));
    whose("after", "after");
}

static void *hammer(void *name) {
    for (int i = 0; i < 100; i++) {
        make(name, 0600);
        chown(name, 7, 7);
        struct stat s;
        if (stat(name, &s) || s.st_uid != 7) return (void *)1;
        unlink(name);
    }
    return NULL;
}

static void threads_at_once(void) {
    pthread_t thread[4];
    char *name[4] = {"a", "b", "c", "d"};
    long wrong = 0;
    for (int i = 0; i < 4; i++) pthread_create(&thread[i], NULL, hammer, name[i]);
    for (int i = 0; i < 4; i++) { void *result; pthread_join(thread[i], &result); wrong += (long)result; }
    tell("wrong", "%ld", wrong);
}

static void refused(void) {
    CHECK("x32_chown", syscall(0x40000000 | SYS_chown, "x", 1, 1));
    struct { unsigned long flags, mode, resolve; } how = {O_RDONLY, 0, 0};
    CHECK("openat2", syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &how, sizeof how) >= 0);
    how.flags = O_CREAT | O_WRONLY; how.mode = 0600;
    CHECK("openat2_creat", syscall(SYS_openat2, AT_FDCWD, "new", &how, sizeof how) >= 0);
    how.resolve = 8; how.flags = O_RDONLY; how.mode = 0;
    CHECK("openat2_beneath", syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &how, sizeof how));
}

static const struct { const char *name; void (*body)(void); } CASES[] = {
#define C(name) {#name, name}
    C(chown_basic), C(chown_kinds), C(chown_fd), C(chown_marks), C(names), C(reuse), C(stats), C(ids_root),
    C(ids_effective), C(ids_three), C(ids_groups), C(ids_fs), C(ids_inherit), C(ids_threads), C(ids_shown), C(caps),
    C(caps_bounding), C(caps_missing), C(user_open), C(user_change), C(user_names), C(user_access), C(root_access),
    C(user_signal), C(new_files), C(devices), C(attributes), C(access_lists), C(default_lists), C(peers), C(programs),
    C(signals_during), C(killed_during), C(threads_at_once), C(refused),
};

int main(int count, char **words) {
    if (count == 3 && !strcmp(words[1], "--whoami")) {
        current = "program";
        whoami(words[2]);
        capabilities(words[2]);
        return 7;
    }
    chmod("/tmp", 01777);
    for (number = 0; number < (int)(sizeof CASES / sizeof *CASES); number++) {
        char place[64];
        snprintf(place, sizeof place, "/tmp/case%d", number);
        mkdir(place, 0777);
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            current = CASES[number].name;
            umask(022);
            setgroups(0, NULL);
            if (chdir(place)) abort();
            CASES[number].body();
            fflush(stdout);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        if (status) printf("%s: ended with %d\n", CASES[number].name, status);
    }
    return 0;
}
