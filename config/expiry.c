/* expiry: what happens to connections at the end of the certificates that they were made under, as
 * listeners, ports and services say it. */
#include <postern/conf.h>

#include "config_priv.h"

const char *const words_on_expiry[] = {"drain", "cut", "warn", NULL};

static bool says(const struct node *map, const char *key)
{
    return node_get(map, key) != NULL;
}

void expiry_check(struct context *c, const struct node *map, struct conf_expiry *e)
{
    e->on_said = says(map, "on_expiry");
    e->grace_said = says(map, "expiry_grace");
    e->spread_said = says(map, "expiry_spread");
    if (schema_word_is(map, "on_expiry", "cut")) {
        schema_refuse_key(c, map, "expiry_grace", "'on_expiry: cut'",
                          "nothing is drained before the end");
    }
    if (schema_word_is(map, "on_expiry", "warn")) {
        schema_refuse_key(c, map, "expiry_grace", "'on_expiry: warn'", "nothing ends");
        schema_refuse_key(c, map, "expiry_spread", "'on_expiry: warn'", "nothing ends");
    }
}

void expiry_check_port(struct context *c, const struct node *map, void *value)
{
    struct conf_port *p = value;
    expiry_check(c, map, &p->expiry);
}

void conf_expiry_narrow(struct conf_expiry *e, const struct conf_expiry *narrower)
{
    if (narrower->on_said) {
        e->on = narrower->on;
    }
    if (narrower->grace_said) {
        e->grace_s = narrower->grace_s;
    }
    if (narrower->spread_said) {
        e->spread_s = narrower->spread_s;
    }
}
