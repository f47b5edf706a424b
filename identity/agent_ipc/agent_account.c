/* Whom a caller's connections, calls, memory and certificates count for. */
#include <postern/agent_ipc.h>

uint64_t agent_account(bool contained, struct str container_id, struct str unit, uint32_t uid)
{
    const struct str name = container_id.n > 0 ? container_id : unit;
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a: runtimes and root choose the names */

    if (!contained && container_id.n == 0) {
        return uid;
    }
    for (size_t i = 0; i < name.n; i++) {
        h = (h ^ (uint8_t)name.p[i]) * UINT64_C(0x100000001b3);
    }
    return h | UINT64_C(1) << 63; /* no uid's number */
}
