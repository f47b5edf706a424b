/*
 * What the service may say to the others, as one list: a compromised service has these words and no
 * more. Each word that is not on it is tried on a real keeper, which must close the channel and go
 * on. Whoever makes the list longer has another case for docs/privilege-separation.md.
 */
#include "keeper_process.h"

#include <postern/agent_ipc.h>
#include <postern/ipc.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct {
    enum agent_way way;
    const char *words; /* agent_msg_name of each, between spaces */
} MAY_SAY[] = {
    {AGENT_WAY_SERVICE_KEEPER, " identity_get issue bundle_get jwt_sign jwks_get "},
    {AGENT_WAY_SERVICE_ATTESTOR, " reattest release "},
    {AGENT_WAY_SERVICE_SUPERVISOR, " report ready failed history "},
};

static bool on_list(const char *words, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = strstr(words, word); p != NULL; p = strstr(p + 1, word)) {
        if (p[-1] == ' ' && p[n] == ' ') {
            return true;
        }
    }
    return false;
}

/* Any message of the type, with zeroes in it: what a table of ways lets pass. */
static void test_list_is_whole(void **state)
{
    (void)state;
    for (size_t w = 0; w < sizeof(MAY_SAY) / sizeof(MAY_SAY[0]); w++) {
        for (uint32_t type = AGENT_MSG_NONE + 1; type < AGENT_N_MSGS; type++) {
            static union agent_msg m;
            bool allowed;

            agent_ipc_init(&m, (enum agent_msg_type)type, 0);
            allowed = agent_ipc_check(MAY_SAY[w].way, &m, m.head.size, false);
            /* nothing that the service says has a descriptor with it */
            assert_false(agent_ipc_check(MAY_SAY[w].way, &m, m.head.size, true));
            if (allowed != on_list(MAY_SAY[w].words, agent_msg_name(type))) {
                fail_msg("the service may%s say %s: the list here knows otherwise",
                         allowed ? "" : " not", agent_msg_name(type));
            }
        }
    }
}

static void test_other_words_end_it(void **state)
{
    struct keeper_process *k = *state;

    for (uint32_t type = AGENT_MSG_NONE + 1; type < AGENT_N_MSGS; type++) {
        for (int with_fd = 0; with_fd <= 1; with_fd++) {
            static union agent_msg m;
            enum ipc_outcome o;

            if (with_fd == 0 && on_list(MAY_SAY[0].words, agent_msg_name(type))) {
                continue;
            }
            agent_ipc_init(&m, (enum agent_msg_type)type, 0);
            assert_int_equal(
                ipc_send(k->service, &m, m.head.size, with_fd == 1 ? STDIN_FILENO : -1), IPC_OK);
            while ((o = keeper_recv(k->service, AGENT_WAY_KEEPER_SERVICE)) == IPC_OK) {
            }
            if (o != IPC_CLOSED || !keeper_still_runs(k)) {
                fail_msg("%s%s: the channel was not closed, or the keeper ended",
                         agent_msg_name(type), with_fd == 1 ? " with a descriptor" : "");
            }
            keeper_new_service(k);
        }
    }
    assert_true(keeper_load_entries(k)->ok); /* no order of the service's came through */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list_is_whole),
        cmocka_unit_test_setup_teardown(test_other_words_end_it, keeper_setup, keeper_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
