/* Random forks, vforks, spawns, threads, signals, executions and renames: `stress SECONDS WORKERS SEED`, in a directory of its own.
 *
 * Each worker does one thing after the other and looks whether it came out as it must: a child that executes answers with the code
 * it was asked for, a child that was killed has died of that signal, a renamed file holds what was written. Answers `ok COUNT`
 * and exit code 0, or says what was wrong. A worker that is still at one thing after 60 seconds is a hang. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static char self[PATH_MAX];
static unsigned state;
static int number;
static volatile sig_atomic_t heard;
static const char *doing = "nothing";
static _Atomic long *done;

static unsigned draw(unsigned below) {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return state % below;
}

static void wrong(const char *what) {
    dprintf(1, "worker %d: %s: %s (errno %d)\n", number, doing, what, errno);
    kill(0, SIGKILL);
    _exit(1);
}

static void hang(int signal) {
    (void)signal;
    wrong("hangs");
}

static void hear(int signal) {
    (void)signal;
    int before = errno, fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) close(fd);
    heard++, errno = before;
}

static int reap(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) != pid)
        if (errno != EINTR) wrong("waitpid");
    return status;
}

static void ill(int status, const char *what) {
    dprintf(1, "status %x: ", status);
    wrong(what);
}

static void want(int status, int code) {
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code) ill(status, "a child ended otherwise");
}

static void forked(void) {
    int code = draw(200);
    pid_t pid = fork();
    if (pid < 0) wrong("fork");
    if (pid == 0) {
        if (code & 1) {
            pid_t inner = fork();
            if (inner == 0) _exit(3);
            want(reap(inner), 3);
        }
        _exit(code);
    }
    want(reap(pid), code);
}

static void executed(void) {
    char word[12];
    int code = draw(200);
    sprintf(word, "%d", code);
    char *arguments[] = {self, "exit", word, NULL};
    pid_t pid;
    switch (draw(3)) {
    case 0:
        if ((pid = fork()) == 0) execv(self, arguments), _exit(255);
        break;
    case 1:
        if ((pid = vfork()) == 0) execv(self, arguments), _exit(255);
        break;
    default:
        if (posix_spawn(&pid, self, NULL, NULL, arguments, environ)) wrong("posix_spawn");
    }
    if (pid < 0) wrong("fork");
    want(reap(pid), code);
}

static void vforked_in_vain(void) {
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/none", "none", NULL);
        _exit(errno == ENOENT ? 7 : 8);
    }
    want(reap(pid), 7);
}

static void *touch(void *count) {
    for (int i = 0; i < (int)(long)count; i++) {
        struct stat found;
        if (stat("/", &found) || !S_ISDIR(found.st_mode)) return (void *)1;
    }
    return NULL;
}

static void threaded(void) {
    pthread_t threads[6];
    int count = 1 + draw(6);
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, touch, (void *)(long)draw(20))) wrong("pthread_create");
    for (int i = 0; i < count; i++) {
        void *result;
        if (pthread_join(threads[i], &result) || result) wrong("a thread");
    }
}

static void *execute(void *word) {
    execl(self, self, "exit", (char *)word, NULL);
    _exit(255);
}

static void *busy(void *unused) {
    for (;;) touch((void *)4L);
    return unused;
}

/* A thread that is not the first executes, while others are in the middle of something. */
static void executed_by_a_thread(void) {
    pid_t pid = fork();
    if (pid < 0) wrong("fork");
    if (pid == 0) {
        pthread_t thread;
        for (unsigned i = draw(3); i; i--) pthread_create(&thread, NULL, busy, NULL);
        pthread_create(&thread, NULL, execute, "41");
        busy(NULL);
    }
    want(reap(pid), 41);
}

/* A process whose threads are at work ends, or is ended. */
static void ended(void) {
    int signal = draw(2) ? SIGKILL : SIGTERM;
    int pipe[2];
    char byte;
    if (pipe2(pipe, O_CLOEXEC)) wrong("pipe");
    pid_t pid = fork();
    if (pid < 0) wrong("fork");
    if (pid == 0) {
        pthread_t thread;
        for (unsigned i = draw(4); i; i--) pthread_create(&thread, NULL, busy, NULL);
        if (write(pipe[1], "x", 1) != 1) _exit(9);
        if (draw(3) == 0) _exit(5);
        busy(NULL);
    }
    close(pipe[1]);
    while (read(pipe[0], &byte, 1) < 0 && errno == EINTR) {}
    close(pipe[0]);
    if (draw(2)) usleep(draw(2000));
    kill(pid, signal);
    int status = reap(pid);
    if (WIFSIGNALED(status) ? WTERMSIG(status) != signal : WEXITSTATUS(status) != 5) ill(status, "another end");
}

/* What is killed in the middle of a fork leaves a child that goes on. */
static void killed_forking(void) {
    int pipe[2];
    char byte;
    if (pipe2(pipe, O_CLOEXEC)) wrong("pipe");
    pid_t pid = fork();
    if (pid < 0) wrong("fork");
    if (pid == 0) {
        signal(SIGCHLD, SIG_IGN);
        for (;;)
            if (fork() == 0) _exit(0);
    }
    close(pipe[1]);
    usleep(draw(5000));
    kill(pid, SIGKILL);
    reap(pid);
    ssize_t length;
    while ((length = read(pipe[0], &byte, 1)) < 0 && errno == EINTR) {}
    if (length) wrong("the pipe");
    close(pipe[0]);
}

static void stopped(void) {
    pid_t pid = fork();
    int status;
    if (pid < 0) wrong("fork");
    if (pid == 0) busy(NULL);
    for (unsigned i = 1 + draw(3); i; i--) {
        kill(pid, SIGSTOP);
        while (waitpid(pid, &status, WUNTRACED) != pid)
            if (errno != EINTR) wrong("waitpid");
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP) ill(status, "it did not stop");
        kill(pid, SIGCONT);
        while (waitpid(pid, &status, WCONTINUED) != pid)
            if (errno != EINTR) wrong("waitpid");
        if (!WIFCONTINUED(status)) ill(status, "it did not go on");
    }
    kill(pid, SIGKILL);
    if (!WIFSIGNALED(reap(pid))) wrong("it did not die");
}

/* Signals come in the middle of calls; the handler makes calls of its own. */
static void signalled(void) {
    struct itimerval often = {{0, 300 + draw(1000)}, {0, 200}}, never = {{0, 0}, {0, 0}};
    char name[64];
    sprintf(name, "s%d", number);
    signal(SIGVTALRM, hear), signal(SIGUSR1, hear);
    setitimer(ITIMER_VIRTUAL, &often, NULL);
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 20; i++) kill(getppid(), SIGUSR1), usleep(draw(300));
        _exit(0);
    }
    for (int i = 0; i < 40; i++) {
        int fd;
        while ((fd = open(name, O_CREAT | O_RDWR | O_CLOEXEC, 0600)) < 0)
            if (errno != EINTR) wrong("open");
        close(fd);
        if (access(name, R_OK)) wrong("access");
        if (unlink(name)) wrong("unlink");
    }
    want(reap(pid), 0);
    setitimer(ITIMER_VIRTUAL, &never, NULL);
}

static void renamed(void) {
    char a[64], b[64], text[64], found[64] = "";
    sprintf(a, "d%d/a%u", number, draw(4)), sprintf(b, "d%d/b%u", number, draw(4));
    sprintf(text, "%u", draw(1000000));
    if (mkdir("shared", 0755) && errno != EEXIST) wrong("mkdir");
    char directory[64];
    sprintf(directory, "d%d", number);
    if (mkdir(directory, 0755) && errno != EEXIST) wrong("mkdir");
    int fd = open(a, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) < 0 || close(fd)) wrong("write");
    if (rename(a, b)) wrong("rename");
    if (access(a, F_OK) == 0) wrong("the old name is there");
    fd = open(b, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, found, 63) < 0 || close(fd)) wrong("read");
    if (strcmp(text, found)) wrong("another file");
    /* And one that all workers fight for. */
    sprintf(a, "shared/%u", draw(3));
    if (draw(2)) rename(b, a); else if (link(b, a) && errno != EEXIST && errno != ENOENT) wrong("link");
    if (draw(4) == 0) unlink(a);
    char real[PATH_MAX];
    if (!realpath(directory, real)) wrong("realpath");
}

static void orphaned(void) {
    pid_t pid = fork();
    if (pid < 0) wrong("fork");
    if (pid == 0) {
        if (fork() == 0) {
            if (draw(2)) setsid();
            touch((void *)10L);
            usleep(draw(3000));
            _exit(0);
        }
        _exit(0);
    }
    want(reap(pid), 0);
}

static void (*const THINGS[])(void) = {forked, executed, executed, vforked_in_vain, threaded, executed_by_a_thread,
                                      ended, killed_forking, stopped, signalled, renamed, renamed, orphaned};
static const char *const NAMES[] = {"fork", "exec", "exec", "vfork", "threads", "exec by a thread",
                                   "end", "killed", "stop", "signals", "rename", "rename", "orphan"};

int main(int count, char **words) {
    if (count == 3 && !strcmp(words[1], "exit")) return atoi(words[2]);
    if (count != 4) return 2;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0) return 2;
    setpgid(0, 0);
    time_t over = time(NULL) + atoi(words[1]);
    int workers = atoi(words[2]);
    const char *only = getenv("STRESS_ONLY");
    done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pids[64];
    if (workers > 64) return 2;
    for (number = 0; number < workers; number++) {
        if ((pids[number] = fork()) != 0) continue;
        state = 2463534242u ^ (unsigned)(atoi(words[3]) * 7919 + number * 104729);
        signal(SIGALRM, hang);
        while (time(NULL) < over) {
            unsigned which = draw(sizeof THINGS / sizeof *THINGS);
            if (only && strcmp(only, NAMES[which])) continue;
            doing = NAMES[which];
            alarm(60);
            THINGS[which]();
            alarm(0);
            ++*done;
        }
        _exit(0);
    }
    /* As a container's first process we have all orphans, too. */
    for (int status; workers; workers--)
        if ((status = reap(pids[workers - 1]))) return printf("a worker ended with %x\n", status), 1;
    printf("ok %ld\n", *done);
    return 0;
}
