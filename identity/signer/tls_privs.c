/* All that postern-token may do: the watcher starts itself anew, and that is all; its child has the
 * module, its files, and no way out but the channel. */
#include "tls_priv.h"

#include <postern/sandbox.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

extern char **environ;

int token_confine_watcher(struct err *err)
{
    sandbox_secure_bits();
    return sandbox_drop_caps(0, err) == -1 || sandbox_limits(true, err) == -1 ? -1 : 0;
}

int token_confine(const struct token_process *p, struct err *err)
{
    static const char *const system[] = {"/usr/lib", "/usr/lib64",       "/lib",
                                         "/lib64",   "/etc/ld.so.cache", "/usr/local/lib"};
    const struct sandbox_filter filter = {
        .name = "token", .calls = signer_syscalls, .unlisted = SANDBOX_REFUSE};
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();
    int r;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == -1) {
        sandbox_plan_free(plan);
        return err_sys(err, "no signal at the watcher's death");
    }
    for (size_t i = 0; i < sizeof(system) / sizeof(system[0]); i++) {
        sandbox_plan_path(plan, SANDBOX_READ, system[i]);
    }
    sandbox_plan_path(plan, SANDBOX_READ, p->name.module);
    for (char **e = environ; e != NULL && *e != NULL; e++) {
        const char *value = strchr(*e, '=');
        if (value != NULL && value[1] == '/') {
            sandbox_plan_path(plan, SANDBOX_READ, value + 1);
        }
    }
    for (size_t i = 0; p->paths[i] != NULL; i++) {
        sandbox_plan_path(plan, SANDBOX_WRITE, p->paths[i]);
    }
    r = sandbox_limits(false, err);
    r = r == 0 ? sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, &took, err) : -1;
    r = r == 0 ? sandbox_seccomp(&filter, sandbox_kill_all(), err) : -1;
    sandbox_plan_free(plan);
    return r;
}
