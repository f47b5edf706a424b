/* The service manager: what it is told of a start, a reload and the end, and that we are alive. */
#include "supervisor_priv.h"

#include <postern/os.h>

enum { SIGNS_A_PERIOD = 3 };

void supervisor_manager_ready(struct supervisor *s)
{
    service_manager_ready(&s->manager, "Issuing");
    s->alive_ms = os_now_ms();
}

void supervisor_manager_reloading(struct supervisor *s)
{
    if (s->running && !s->reloading) {
        s->reloading = true;
        service_manager_reloading(&s->manager);
    }
}

int supervisor_manager_due_ms(const struct supervisor *s)
{
    if (s->manager.watchdog_ms == 0 || !s->running) {
        return -1;
    }
    uint64_t due = s->alive_ms + s->manager.watchdog_ms / SIGNS_A_PERIOD;
    uint64_t now = os_now_ms();
    uint64_t wait = due > now ? due - now : 0;
    return wait < INT32_MAX ? (int)wait : INT32_MAX;
}

void supervisor_manager_turn(struct supervisor *s)
{
    if (s->reloading && !s->reload && s->applied && !s->ca_changed) {
        s->reloading = false;
        service_manager_ready(&s->manager, NULL);
    }
    if (supervisor_manager_due_ms(s) == 0) {
        s->alive_ms = os_now_ms();
        service_manager_alive(&s->manager);
    }
}
