/*
 * The checks of the control socket's two messages. First byte: request or answer.
 *
 * Properties: what passes lies inside its struct, text by text, and prints.
 */
#include <postern/agent_control.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void try_request(const uint8_t *data, size_t size)
{
    static struct agent_control_request r;

    memset(&r, 0, sizeof(r));
    memcpy(&r, data, size < sizeof(r) ? size : sizeof(r));
    if (!agent_control_check_request(&r, size)) {
        return;
    }
    require(size == sizeof(r) && r.verb > AGENT_CONTROL_NONE && r.verb < AGENT_N_CONTROL_VERBS);
    for (size_t i = 0; i < AGENT_CONTROL_ARGS_MAX; i++) {
        struct str arg = agent_control_arg(&r, i);

        require(arg.n <= AGENT_CONTROL_ARG_MAX && memchr(arg.p, 0, arg.n) == NULL);
        require(agent_control_put(&r, i, arg));
    }
    require(agent_control_check_request(&r, size));
}

static void try_answer(const uint8_t *data, size_t size)
{
    static struct agent_control_answer a;
    char text[2048];

    memset(&a, 0, sizeof(a));
    memcpy(&a, data, size < sizeof(a) ? size : sizeof(a));
    if (!agent_control_check_answer(&a, size)) {
        return;
    }
    require(a.len <= sizeof(a.text));
    (void)err_text(&a.error, text, sizeof(text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    if ((data[0] & 1) == 0) {
        try_request(data + 1, size - 1);
    } else {
        try_answer(data + 1, size - 1);
    }
    return 0;
}
