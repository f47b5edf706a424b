/* The proxy role: a sidecar, or explicit listeners with the mesh's identities. */
#include "proxy_priv.h"
#include "roles_priv.h"

const struct role_option proxy_line[PROXY_N_LINE] = {
    ROLE_FLAG("--take-over", struct proxy_options, take_over,
              "take the sockets of the one that runs, which then drains"),
    ROLE_TEXT("--env", "VARIABLE", struct proxy_options, env,
              "the environment's variable that holds what a file would"),
};

static const struct role_use USE = {
    .command = "proxy",
    .uses = ROLE_USES("proxy [--take-over] FILE", "proxy [--take-over] --env VARIABLE"),
    .options = proxy_line,
    .n_options = PROXY_N_LINE,
    .max_words = 1};

int proxy_main(int argc, char **argv)
{
    static const struct proxy_role role = {
        .name = "proxy", .use = &USE, .load = conf_load_proxy, .parse = conf_parse_proxy};
    return proxy_run(&role, argc, argv);
}
