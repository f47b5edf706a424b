/* The gateway role: a proxy whose listeners are all said, and whose certificates and peers need not
 * be the mesh's. */
#include "proxy_priv.h"
#include "roles_priv.h"

#include <string.h>

static const struct role_use USE = {
    .command = "gateway",
    .uses = ROLE_USES("gateway [--take-over] FILE", "gateway [--take-over] --env VARIABLE",
                      "gateway --from-ghostunnel 'server|client FLAGS' [OPTIONS]"),
    .options = proxy_line,
    .n_options = PROXY_N_LINE,
    .notes = "--from-ghostunnel prints a file; its own options:\n"
             "postern gateway --from-ghostunnel --help\n",
    .max_words = 1};

int gateway_main(int argc, char **argv)
{
    static const struct proxy_role role = {
        .name = "gateway", .use = &USE, .load = conf_load_gateway, .parse = conf_parse_gateway};
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--from-ghostunnel", 17) == 0) {
            return ghostunnel_main(argc, argv);
        }
    }
    return proxy_run(&role, argc, argv);
}
