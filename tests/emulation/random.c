/* Random calls about a few names, by root and by two users, and what each answers: `random SEED COUNT [root] [kept]`.
 *
 * Run with real ids and under emulation, with one seed, the lines must be the same. Without `root` the caller becomes
 * ann (1000, also in 1002), bob (1001) and root again every few calls. With `kept` no mode takes from the owner what
 * it may.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>

static unsigned long long state;

static unsigned kept;

static unsigned pick(unsigned below) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (state >> 33) % below;
}

/* A path of up to three components; some are followed by a slash, some begin at the top. */
static const char *path(void) {
    static char text[4][64];
    static int next;
    static const char *const names[] = {"a", "b", "c", "d", "e", "shadow"};
    char *out = text[next++ & 3];
    *out = 0;
    if (!pick(6)) strcat(out, "/w/");
    if (!pick(20)) strcat(out, "./");
    int depth = 1 + !pick(2) + !pick(4);
    for (int i = 0; i < depth; i++) {
        if (i) strcat(out, "/");
        strcat(out, i && !pick(12) ? ".." : names[pick(6)]);
    }
    if (!pick(15)) strcat(out, "/");
    if (!pick(40)) strcat(out, "/.");
    return out;
}

static unsigned mode(void) {
    return pick(010000) | kept;
}

static const char *name_of(int number) {
    return number ? strerrorname_np(number) : "done";
}

static void show(const char *what, const char *name, int result, struct stat *s) {
    if (result) printf("%s %s: %s\n", what, name, strerrorname_np(errno));
    else printf("%s %s: %u:%u %o %lu\n", what, name, s->st_uid, s->st_gid, s->st_mode,
                S_ISDIR(s->st_mode) ? 0 : (unsigned long)s->st_nlink);
}

/* What is done to an open file: no way leads there. */
static int on_descriptor(const char *name, unsigned uid, unsigned gid) {
    static const int flags[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_DIRECTORY, O_WRONLY | O_TRUNC, O_RDONLY | O_NOFOLLOW};
    int fd = open(name, flags[pick(6)] | O_NONBLOCK), which = pick(4), result = -1, saved;
    if (fd < 0) return -1;
    errno = 0;
    switch (which) {
    case 0: result = fchmod(fd, mode()); break;
    case 1: result = fchown(fd, uid, gid); break;
    case 2: result = futimens(fd, NULL); break;
    default: result = fsetxattr(fd, "user.x", "1", 1, 0);
    }
    saved = errno;
    close(fd);
    errno = saved;
    return result;
}

/* An access list of six lines, now and then a short or an empty one. */
static int set_list(const char *name) {
    struct { unsigned version; struct { unsigned short tag, permissions; unsigned id; } lines[6]; } list = {2};
    static const unsigned short tags[] = {1, 2, 4, 8, 0x10, 0x20};
    static const int is_short[] = {0, 2, 5};
    int length = pick(6) ? 6 : pick(2) ? 3 : 0;
    for (int i = 0; i < length; i++) {
        int line = length == 3 ? is_short[i] : i;
        list.lines[i].tag = tags[line];
        list.lines[i].permissions = pick(8) | (line ? 0 : kept / 0100);
        list.lines[i].id = line == 1 || line == 3 ? 1000 + pick(3) : -1u;
    }
    return setxattr(name, pick(3) ? "system.posix_acl_access" : "system.posix_acl_default", &list, 4 + 8 * length, 0);
}

static void show_list(const char *name) {
    unsigned char value[128];
    ssize_t length = getxattr(name, pick(2) ? "system.posix_acl_access" : "system.posix_acl_default", value, sizeof value);
    printf("list %s: %s", name, name_of(length < 0 ? errno : 0));
    for (ssize_t i = 4; i < length; i += 8) printf(" %x:%x:%d", value[i], value[i + 2], *(int *)(value + i + 4));
    printf("\n");
}

static void look(void) {
    struct stat s;
    struct statx x;
    const char *name = path();
    int wanted;
    char value[8];
    switch (pick(8)) {
    case 0: show("lstat", name, lstat(name, &s), &s); break;
    case 1: show("stat", name, stat(name, &s), &s); break;
    case 2:
        if (statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &x)) printf("statx %s: %s\n", name, strerrorname_np(errno));
        else printf("statx %s: %u:%u %o\n", name, x.stx_uid, x.stx_gid, x.stx_mode);
        break;
    case 3:
        wanted = pick(8);
        printf("access %s %o: %s\n", name, wanted, name_of(access(name, wanted) ? errno : 0));
        break;
    case 4:
        wanted = pick(8);
        printf("eaccess %s %o: %s\n", name, wanted, name_of(faccessat(AT_FDCWD, name, wanted, AT_EACCESS) ? errno : 0));
        break;
    case 6: show_list(name); break;
    case 5: printf("getxattr %s: %s\n", name, name_of(getxattr(name, "user.x", value, sizeof value) < 0 ? errno : 0)); break;
    default: {
        int fd = open(name, O_RDONLY | O_NONBLOCK);
        show("fstat", name, fd < 0 ? -1 : fstat(fd, &s), &s);
        if (fd >= 0) close(fd);
    }
    }
}

static void act(void) {
    const char *one = path(), *other = path();
    int fd, result = 0, which = pick(24);
    unsigned uid = pick(4) ? 1000 + pick(3) : pick(2) ? 0 : (unsigned)-1, gid = pick(3) ? 1000 + pick(3) : (unsigned)-1;
    struct timeval times[2] = {{1, 2}, {3, 4}};
    errno = 0;
    switch (which) {
    case 0: case 1:
        fd = open(one, O_CREAT | O_WRONLY | O_NONBLOCK | (pick(2) ? O_EXCL : 0), ((pick(3) ? 0666 : 07777) & ~pick(0100)) | kept);
        result = fd < 0 ? -1 : 0;
        if (fd >= 0) close(fd);
        break;
    case 2: result = mkdir(one, pick(3) ? 0777 : mode()); break;
    case 3: result = symlink(pick(3) ? pick(2) ? "a" : "b/c" : pick(2) ? "d/." : "../w/e", one); break;
    case 4: result = link(one, other); break;
    case 5: result = linkat(AT_FDCWD, one, AT_FDCWD, other, AT_SYMLINK_FOLLOW); break;
    case 6: case 7: result = rename(one, other); break;
    case 8: result = syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, pick(2) ? 1 : 2); break;
    case 9: result = unlink(one); break;
    case 10: result = rmdir(one); break;
    case 11: case 12: result = chown(one, uid, gid); break;
    case 13: result = lchown(one, uid, gid); break;
    case 14: result = chmod(one, mode()); break;
    case 15: result = mknod(one, S_IFIFO | 0640, 0); break;
    case 16: result = truncate(one, 0); break;
    case 17: result = utimes(one, pick(2) ? times : NULL); break;
    case 18: result = setxattr(one, "user.x", "1", 1, 0); break;
    case 19: result = removexattr(one, "user.x"); break;
    case 20:
        result = chdir(one);
        if (!result) printf("back: %s\n", name_of(chdir("/w") ? errno : 0));
        break;
    case 21: result = set_list(one); break;
    case 22: result = removexattr(one, pick(3) ? "system.posix_acl_access" : "system.posix_acl_default"); break;
    default: result = on_descriptor(one, uid, gid);
    }
    printf("%d %s %s %d:%d: %s\n", which, one, other, uid, gid, name_of(result ? errno : 0));
}

/* The calls themselves: the library would have all threads do it. */
static int own(unsigned uid) {
    unsigned group = 1002;
    return syscall(SYS_setresuid, -1, 0, -1) || syscall(SYS_setgroups, uid == 1000, &group) || syscall(SYS_setresgid, -1, uid, -1) ||
           syscall(SYS_setresuid, -1, uid, -1);
}

int main(int count, char **words) {
    int only_root = 0;
    if (count < 3) return 2;
    state = strtoull(words[1], NULL, 10);
    for (char **word = words + 3; *word; word++) {
        if (!strcmp(*word, "root")) only_root = 1;
        else kept = 0700;
    }
    umask(0);
    mkdir("/w", 0777);
    if (chdir("/w")) return 1;
    for (long left = atol(words[2]); left > 0; left--) {
        if (!pick(8) && !only_root) printf("as %d\n", own(pick(2) ? 0 : 1000 + pick(2)));
        /* The top is everybody's again. */
        if (!pick(50)) chmod("/w", 0777);
        if (pick(3)) act();
        else look();
    }
    return 0;
}
