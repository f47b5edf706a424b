/* The gateway role: a proxy whose listeners are all said, and whose certificates and peers need not
 * be the mesh's. */
#include "proxy_priv.h"
#include "roles_priv.h"

#include <string.h>

int gateway_main(int argc, char **argv)
{
    static const struct proxy_role role = {
        .name = "gateway", .load = conf_load_gateway, .parse = conf_parse_gateway};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--from-ghostunnel") == 0) {
            return ghostunnel_main(argc, argv);
        }
    }
    return proxy_run(&role, argc, argv);
}
