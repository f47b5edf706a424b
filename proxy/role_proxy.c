/* The proxy role: a sidecar, or explicit listeners with the mesh's identities. */
#include "proxy_priv.h"
#include "roles_priv.h"

int proxy_main(int argc, char **argv)
{
    static const struct proxy_role role = {
        .name = "proxy", .load = conf_load_proxy, .parse = conf_parse_proxy};
    return proxy_run(&role, argc, argv);
}
