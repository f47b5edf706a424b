/*
 * postern-keeper: holds the CA keys of an agent and signs. docs/privilege-separation.md says what
 * for whom. It starts as a list: its own descriptors, what the supervisor wants it to be, giving up
 * everything else, and only then the state files and the first message that a workload can have
 * caused.
 */
#include "keeper_priv.h"

#include <openssl/crypto.h>
#include <postern/agent_child.h>
#include <postern/os.h>
#include <string.h>
#include <unistd.h>

static const char EXECUTABLE[] = "postern-keeper";

static enum jwt_alg jwt_alg_of(uint32_t algorithm)
{
    static const enum jwt_alg algs[] = {[AGENT_JWT_ES256] = JWT_ES256,
                                        [AGENT_JWT_ES384] = JWT_ES384,
                                        [AGENT_JWT_RS256] = JWT_RS256};

    return algs[algorithm]; /* agent_ipc_recv has checked that it is one */
}

static int start(struct keeper *k, struct err *err)
{
    static union agent_msg msg;
    const struct agent_msg_start_keeper *s = &msg.start_keeper;

    /* No configuration file of OpenSSL's: it could load code. */
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1) {
        return err_set(err, ERR_CRYPTO, "libcrypto does not start");
    }
    k->timer = keeper_timer_new(err);
    if (k->timer == -1 ||
        agent_child_wait_start(AGENT_WAY_SUPERVISOR_KEEPER, AGENT_MSG_START_KEEPER, EXECUTABLE,
                               &msg, err) == -1 ||
        keeper_drop_privileges(s, &k->report, err) == -1 || keeper_tell(k, &k->report, err) == -1) {
        return -1;
    }
    log_set_level(k->log, (enum log_level)s->log_level);
    memcpy(k->trust_domain, s->trust_domain, s->trust_domain_len);
    k->svid_ttl_s = s->svid_ttl_s;
    k->outage_warn_s = s->outage_warn_s;
    keeper_authority_init(&k->authority, str_of(k->trust_domain), s->root_ttl_s, s->node_ttl_s);
    keeper_jwt_init(&k->jwt, jwt_alg_of(s->jwt_algorithm), s->jwt_ttl_s, s->jwt_key_ttl_s);
    k->uses = keeper_uses_new();
    keeper_pace_start(k);
    k->callers = keeper_callers_new(s);
    return 0;
}

int main(void)
{
    static struct keeper k = {.control = AGENT_FD_CONTROL,
                              .attestor = AGENT_FD_KEEPER_ATTESTOR,
                              .service = -1,
                              .timer = -1,
                              .kubelet = -1,
                              .signer = {.fd = -1},
                              .old_key_fd = -1,
                              .old_cert_fd = -1,
                              .journal = {.fd = -1, .head_fd = -1},
                              .start_failure = ERR_INIT};
    struct err err = ERR_INIT;
    int r;

    k.clock = keeper_clock_os();
    k.log = log_new_fd(STDERR_FILENO, LOG_INFO, "keeper");
    r = start(&k, &err);
    if (r == 0) {
        r = keeper_run(&k, &err);
    }
    if (r == -1) {
        agent_child_tell_failure(EXECUTABLE, &err);
    }
    /* At an orderly end too the attestor goes before the supervisor's channel does. */
    keeper_journal_close(&k, r == -1 && err.code != ERR_UNAVAILABLE ? &err : NULL);
    keeper_callers_free(k.callers);
    keeper_uses_free(k.uses);
    keeper_entries_free(k.entries);
    keeper_entries_free(k.incoming);
    keeper_force_free(k.change.next);
    keeper_deny_free(k.deny);
    keeper_deny_free(k.deny_incoming);
    keeper_pods_free(k.pods);
    keeper_authority_deinit(&k.authority);
    keeper_disk_free(k.disk_in);
    keeper_disk_free(k.disk_next);
    keeper_rest_deinit(&k.rest);
    keeper_seal_deinit(&k.seal);
    keeper_jwt_deinit(&k.jwt);
    log_free(k.log);
    _exit(r == -1 ? 1 : 0); /* no handlers: what they would do is not in the list of privs.c */
}
