#include "keeper_priv.h"

#include <postern/os.h>

static int64_t os_clock_wall_s(void *arg)
{
    (void)arg;
    return os_wall_s();
}

static uint64_t os_clock_now_ms(void *arg)
{
    (void)arg;
    return os_now_ms();
}

struct keeper_clock keeper_clock_os(void)
{
    return (struct keeper_clock){os_clock_wall_s, os_clock_now_ms, NULL};
}

int64_t keeper_clock_wall_s(const struct keeper_clock *c)
{
    return c->wall_s(c->arg);
}

uint64_t keeper_clock_now_ms(const struct keeper_clock *c)
{
    return c->now_ms(c->arg);
}
