/* The process as a whole: what it is made of, what the supervisor and the keeper say of their own
 * accord, and how it ends. */
#include "service_priv.h"

#include <malloc.h>
#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>

/* --- memory ----------------------------------------------------------------------------------- */

/* After a storm the heap is full of holes: a while later what is free goes back. */
static void on_trim_timer(void *arg)
{
    (void)arg;
    (void)malloc_trim(0);
}

void service_trim_later(struct service *s)
{
    if (s->trim_timer.due_ms == 0) {
        loop_timer_arm(&s->trim_timer, SERVICE_TRIM_MS);
    }
}

/* --- ending ----------------------------------------------------------------------------------- */

/* Ends the process with status 1. */
static void fail(struct service *s, const struct err *err)
{
    log_failure(s->log, LOG_ERROR, "service_failed", err);
    s->exit_status = 1;
    loop_stop(s->loop);
}

static void on_stop_timer(void *arg)
{
    struct service *s = arg;
    loop_stop(s->loop);
}

static void stop(struct service *s)
{
    if (s->stopping) {
        return;
    }
    s->stopping = true;
    service_history_stop(s);
    service_streams_end(s, NULL, GRPC_UNAVAILABLE, "the agent is ending: try again");
    grpc_server_drain(s->server);
    loop_timer_arm(&s->stop_timer, grpc_server_conn_count(s->server) > 0 ? SERVICE_STOP_MS : 1);
}

void service_channel_lost(struct service_channel *ch, bool bad)
{
    struct service *s = ch->s;
    struct err err = ERR_INIT;
    if (ch->lost) {
        return;
    }
    ch->lost = true;
    loop_io_want(ch->io, 0);
    if (ch == &s->control && !bad) {
        stop(s); /* closing it means: end orderly */
        return;
    }
    if (s->stopping && !bad) {
        return;
    }
    if (bad) {
        (void)err_set(&err, ERR_PROTOCOL, "the %s sent a bad message", ch->peer);
    } else {
        (void)err_set(&err, ERR_UNAVAILABLE, "the %s closed its channel", ch->peer);
    }
    fail(s, &err);
}

/* --- the keeper ------------------------------------------------------------------------------- */

static void get_bundle(struct service *s);

static void on_bundle(void *arg, const union agent_msg *answer)
{
    struct service *s = arg;
    const struct agent_msg_bundle *b = &answer->bundle;
    s->bundle_ask = NULL;
    s->n_bundle = b->roots_len;
    memcpy(s->bundle, b->roots, b->roots_len);
    s->bundle_tainted = b->tainted;
    s->bundle_generation = b->generation;
    s->have_bundle = true;
    if (s->changed.bundle_generation != b->generation) {
        get_bundle(s);
    }
    service_streams_changed(s);
    if (!s->ready_told) {
        struct agent_msg_plain ready;
        s->ready_told = true;
        agent_ipc_init(&ready, AGENT_MSG_READY, 0);
        (void)service_channel_ask(&s->control, &ready, AGENT_MSG_NONE, NULL, NULL);
    }
}

static void get_bundle(struct service *s)
{
    struct agent_msg_ask msg;
    agent_ipc_init(&msg, AGENT_MSG_BUNDLE_GET, 0);
    s->bundle_ask = service_channel_ask(&s->keeper, &msg, AGENT_MSG_BUNDLE, on_bundle, s);
}

static void on_keeper_push(struct service *s, const union agent_msg *msg, int fd)
{
    (void)fd; /* none comes with any message of the keeper */
    s->changed = msg->changed;
    service_jwt_changed(s);
    bool entries = s->entries_generation != s->changed.entries_generation;
    entries |= s->deny_version != s->changed.deny_version;
    entries |= s->pods_generation != s->changed.pods_generation;
    s->pods_generation = s->changed.pods_generation;
    s->entries_generation = s->changed.entries_generation;
    s->deny_version = s->changed.deny_version;
    if (!s->have_bundle || s->bundle_generation != s->changed.bundle_generation) {
        if (s->bundle_ask == NULL) {
            get_bundle(s);
        }
    }
    if (entries && s->have_bundle) {
        service_streams_changed(s);
    }
}

/* --- the supervisor --------------------------------------------------------------------------- */

static void on_listener(struct service *s, const struct agent_msg_listener *msg, int fd)
{
    uid_t uids[AGENT_UIDS_MAX];
    struct err err = ERR_INIT;
    for (uint32_t i = 0; i < msg->n_uids; i++) {
        uids[i] = msg->uids[i];
    }
    if (admin_add_listener(s->admin, fd, msg->which == AGENT_LISTENER_METRICS, uids, msg->n_uids,
                           &err) == -1) {
        log_failure(s->log, LOG_ERROR, "listener_failed", &err);
    }
}

static void on_control_push(struct service *s, const union agent_msg *msg, int fd)
{
    switch (msg->head.type) { /* agent_ipc_recv let none but these pass */
    case AGENT_MSG_LISTENER:
        on_listener(s, &msg->listener, fd);
        break;
    case AGENT_MSG_PROCESS:
        if (msg->process.role < AGENT_N_ROLES) {
            s->processes[msg->process.role] = msg->process;
        }
        break;
    case AGENT_MSG_ENTRIES_STATE:
        s->entries_state = msg->entries_state;
        break;
    case AGENT_MSG_DENY_BEGIN:
    case AGENT_MSG_DENY_ITEM:
    case AGENT_MSG_DENY_COMMIT:
        if (!service_deny_take(s, msg)) {
            service_channel_lost(&s->control, true);
        }
        break;
    case AGENT_MSG_DOCS_BEGIN:
    case AGENT_MSG_DOC_PART:
    case AGENT_MSG_DOCS_COMMIT:
    case AGENT_MSG_DOCS_STATE:
        if (!service_documents_push(s, msg)) {
            service_channel_lost(&s->control, true);
        }
        break;
    case AGENT_MSG_HISTORY:
        if (!service_history_push(s, &msg->history)) {
            service_channel_lost(&s->control, true);
        }
        break;
    case AGENT_MSG_KUBELET_STATE:
        s->kubelet_state = msg->kubelet_state;
        break;
    case AGENT_MSG_STOP:
        stop(s);
        break;
    default:
        service_channel_lost(&s->control, true); /* a second START_SERVICE */
        break;
    }
}

/* --- the wall clock ---------------------------------------------------------------------------
 */

enum { CLOCK_EVERY_MS = 10000, CLOCK_JUMP_S = 2 };

static void note_clock(struct service *s)
{
    s->clock_wall_s = os_wall_s();
    s->clock_ms = loop_now_ms(s->loop);
}

/* Timers do not know of it, and certificates end by it (docs/authority.md, Times). */
void service_look_at_clock(struct service *s)
{
    int64_t passed_s = (int64_t)(loop_now_ms(s->loop) - s->clock_ms) / 1000;
    bool jumped = os_wall_s() - s->clock_wall_s - passed_s > CLOCK_JUMP_S;
    note_clock(s);
    if (jumped && s->have_bundle && !s->stopping) {
        service_streams_changed(s);
    }
}

static void on_clock(void *arg)
{
    struct service *s = arg;
    service_look_at_clock(s);
    loop_timer_arm(&s->clock_timer, CLOCK_EVERY_MS);
}

/* --- life ------------------------------------------------------------------------------------- */

int service_open(struct service *s, int control, int attestor, int keeper, struct err *err)
{
    static const struct grpc_server_events events = {service_on_conn_closed};
    const struct grpc_limits limits = {.max_streams = s->start.max_conn_calls,
                                       .max_message_bytes = SERVICE_REQUEST_MAX,
                                       .max_conn_in_bytes = 4U * SERVICE_REQUEST_MAX,
                                       .max_call_out_bytes = SERVICE_ANSWER_MAX,
                                       .max_conn_out_bytes = 2U * SERVICE_ANSWER_MAX};
    jwt_init();
    s->own_domain_id =
        mem_must_printf("spiffe://%.*s", (int)s->start.trust_domain_len, s->start.trust_domain);
    s->started_s = os_wall_s();
    s->metrics = metrics_block_new(SERVICE_N_METRICS);
    service_documents_init(s);
    service_history_init(s);
    loop_timer_init(&s->clock_timer, s->loop, on_clock, s);
    loop_timer_arm(&s->clock_timer, CLOCK_EVERY_MS);
    note_clock(s);
    loop_timer_init(&s->stop_timer, s->loop, on_stop_timer, s);
    loop_timer_init(&s->trim_timer, s->loop, on_trim_timer, s);
    s->keygen = x509_keygen_new(err);
    s->admin = s->keygen != NULL ? service_admin_new(s, err) : NULL;
    if (s->admin == NULL) {
        return -1;
    }
    s->server = grpc_server_new(s->loop, service_methods, service_n_methods, &limits, &events, s);
    service_channel_init(&s->control, s, control, AGENT_WAY_SUPERVISOR_SERVICE, "supervisor",
                         on_control_push);
    service_channel_init(&s->attestor, s, attestor, AGENT_WAY_ATTESTOR_SERVICE, "attestor",
                         service_on_attestor_push);
    service_channel_init(&s->keeper, s, keeper, AGENT_WAY_KEEPER_SERVICE, "keeper", on_keeper_push);
    return 0;
}

void service_close(struct service *s)
{
    s->server = grpc_server_free(s->server);
    s->admin = admin_free(s->admin);
    service_jwt_deinit(s);
    if (s->keeper.s != NULL) {
        service_channel_deinit(&s->keeper);
        service_channel_deinit(&s->attestor);
        service_channel_deinit(&s->control);
    }
    service_history_deinit(s);
    if (s->loop != NULL) {
        loop_timer_disarm(&s->stop_timer);
        loop_timer_disarm(&s->clock_timer);
        loop_timer_disarm(&s->trim_timer);
    }
    s->loop = loop_free(s->loop);
    service_secrets_deinit(s);
    s->keygen = x509_keygen_free(s->keygen);
    service_accounts_deinit(s);
    s->metrics = metrics_block_free(s->metrics);
    service_documents_deinit(s);
    service_deny_clear(&s->deny);
    service_deny_clear(&s->deny_incoming);
    free(s->own_domain_id);
    s->own_domain_id = NULL;
}
