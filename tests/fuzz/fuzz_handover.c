/* A message of a take-over: what is accepted is just what its own constructors could have made, and
 * never both with and without a descriptor. */
#include <postern/handover.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool with = handover_msg_ok(data, size, true);
    bool without = handover_msg_ok(data, size, false);
    require(!with || !without);
    if (!with && !without) {
        return 0;
    }
    struct handover_msg m, again;
    require(size == sizeof(m));
    memcpy(&m, data, sizeof(m));
    require(memchr(m.name, '\0', sizeof(m.name)) != NULL && m.pid > 0);
    if (with) {
        handover_msg_socket(&again, m.activated == 1 ? m.name : NULL);
    } else {
        handover_msg_init(&again, (enum handover_type)m.type);
        again.count = m.count;
        handover_msg_build(&again, m.name);
    }
    again.pid = m.pid;
    require(strcmp(again.name, m.name) == 0);
    memcpy(again.name, m.name, sizeof(m.name)); /* what follows the end of a name is nobody's */
    require(memcmp(&m, &again, sizeof(m)) == 0);
    return 0;
}
