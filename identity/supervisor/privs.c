#include "supervisor_priv.h"

#include <linux/capability.h>
#include <postern/os.h>
#include <unistd.h>

#define CAP(name) (1ULL << CAP_##name)

/* What is left to do after the start: starting a service or a loader again (which become somebody
 * else by themselves), ending processes of others, reading files that the operator wrote. */
static const uint64_t KEEP =
    CAP(KILL) | CAP(SETUID) | CAP(SETGID) | CAP(SETPCAP) | CAP(DAC_READ_SEARCH);

int supervisor_drop_privileges(struct supervisor *s, struct err *err)
{
    struct supervisor_child *own = &s->children[AGENT_ROLE_SUPERVISOR];
    struct sandbox_report now;

    sandbox_get_report(&now);
    if (sandbox_drop_caps(KEEP & now.caps, err) == -1 || sandbox_limits(true, err) == -1) {
        return err_prefix(err, "giving up privileges");
    }
    own->role = AGENT_ROLE_SUPERVISOR;
    own->pid = getpid();
    own->reported = true;
    own->report.role = AGENT_ROLE_SUPERVISOR;
    sandbox_get_report(&own->report.report);
    return 0;
}
