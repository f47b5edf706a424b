/* Memory for keys on their way to a caller. */
#include "service_priv.h"

#include <postern/mem.h>

_Static_assert(SERVICE_SECRETS == 64, "a bit of `taken` each");

static bool take_small(struct service_secrets *all, size_t n, struct service_secret *ret)
{
    if (n > SERVICE_SECRET_SIZE || all->taken == UINT64_MAX) {
        return false;
    }
    if (all->bytes == NULL) {
        all->bytes = mem_secret_alloc((size_t)SERVICE_SECRETS * SERVICE_SECRET_SIZE);
        if (all->bytes == NULL) {
            return false;
        }
    }
    unsigned at = (unsigned)__builtin_ctzll(~all->taken);
    all->taken |= UINT64_C(1) << at;
    *ret = (struct service_secret){.bytes = all->bytes + (size_t)at * SERVICE_SECRET_SIZE, .n = n};
    return true;
}

bool service_secret_take(struct service *s, size_t n, struct service_secret *ret)
{
    if (take_small(&s->secrets, n, ret)) {
        return true;
    }
    uint8_t *bytes = mem_secret_alloc(n);
    *ret = (struct service_secret){.bytes = bytes, .n = n, .own = true};
    return bytes != NULL;
}

void service_secret_give(struct service *s, struct service_secret *secret)
{
    if (secret->bytes == NULL) {
        return;
    }
    if (secret->own) {
        (void)mem_secret_free(secret->bytes);
    } else {
        size_t at = (size_t)(secret->bytes - s->secrets.bytes) / SERVICE_SECRET_SIZE;
        mem_wipe(secret->bytes, secret->n);
        s->secrets.taken &= ~(UINT64_C(1) << at);
    }
    *secret = (struct service_secret){.bytes = NULL};
}

void service_secrets_deinit(struct service *s)
{
    POSTERN_ASSERT(s->secrets.taken == 0);
    s->secrets.bytes = mem_secret_free(s->secrets.bytes);
}
