/* What a process with a module may call, whoever asks it. */
#include "signer_priv.h"

/* What it and a module do after the start: files that the rules below let it reach, and memory. No
 * socket, no process, no program. The module's own code is loaded under this list. */
const char *const signer_syscalls[] = {
    /* channels, the PIN, log */
    "recvmsg", "sendmsg", "poll", "ppoll", "alarm", "setitimer",
    /* the token's files */
    "open", "openat", "close", "read", "pread64", "readv", "write", "pwrite64", "writev", "lseek",
    "stat", "fstat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat",
    "faccessat2", "getdents64", "readlink", "readlinkat", "getcwd", "mkdir", "mkdirat", "rename",
    "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "ftruncate", "fsync", "fdatasync",
    "flock", "fcntl", "umask", "chmod", "fchmod", "fchmodat", "dup",
    /* memory */
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "memfd_secret", "mlock", "munlock",
    /* libcrypto, libc, the dynamic linker */
    "getrandom", "futex", "clock_gettime", "gettimeofday", "time", "prctl", "getpid", "getppid",
    "gettid", "getuid", "geteuid", "getgid", "getegid", "sched_yield", "sched_getaffinity",
    "sysinfo", "uname", "getrlimit", "prlimit64", "getrusage", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "sigaltstack", "restart_syscall", "tgkill", "exit", "exit_group", NULL};
