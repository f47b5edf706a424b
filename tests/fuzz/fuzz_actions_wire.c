/*
 * Messages to the runner and to the daemon. Properties: what is taken has its type's size and goes
 * one way only; every text and number in it is within its bounds.
 */
#include <postern/actions_wire.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    union actions_msg m;
    bool there = actions_wire_check(ACTIONS_TO_RUNNER, data, size) == NULL;
    bool back = actions_wire_check(ACTIONS_TO_DAEMON, data, size) == NULL;

    require(!(there && back));
    if (there || back) {
        memset(&m, 0, sizeof(m));
        require(size <= sizeof(m));
        memcpy(&m, data, size);
        require(m.head.size == size && strcmp(actions_type_name(m.head.type), "unknown") != 0);
        if (m.head.type == ACTIONS_DONE) {
            (void)actions_outcome_name(m.done.outcome);
            (void)actions_verdict_name(m.done.verdict);
            require(m.done.text_len <= sizeof(m.done.text));
        } else if (m.head.type == ACTIONS_OUTPUT) {
            require(m.output.len <= sizeof(m.output.text));
        } else if (m.head.type == ACTIONS_LOADED) {
            require(strlen(m.loaded.error.what) < sizeof(m.loaded.error.what));
        }
    }
    (void)probe_answer_check(data, size);
    return 0;
}
