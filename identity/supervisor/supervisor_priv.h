/*
 * supervisor: what its files share.
 *
 * supervisor.c the order of things: start, watch, end
 * children.c   starting processes and joining them
 * messages.c   what the processes say
 * loading.c    file -> loader -> messages
 * entries.c    entry file -> keeper; documents.c: policy, mesh map, modes -> service
 * journal.c    the journal's directory
 * quarantine.c what is quarantined on this node
 * rollout.c    policies that were pushed; rollout_store.c: their files
 * history.c    what the service keeps of permissive ports
 * control.c    the control socket; control_verbs.c: what may be ordered there
 * watch.c      files that change; sources.c: opening them
 * kubelet.c    the process that asks the node's kubelet
 * signer.c     the process that uses the token
 * state.c      the state directory
 * authority.c  what the keeper needs of it
 * sockets.c    listening sockets
 * manager.c    the service manager
 * privs.c      what it keeps after the start
 *
 * One thread.
 */
#ifndef POSTERN_SUPERVISOR_PRIV_H
#define POSTERN_SUPERVISOR_PRIV_H

#include <poll.h>
#include <postern/agent.h>
#include <postern/agent_control.h>
#include <postern/agent_docs.h>
#include <postern/agent_ipc.h>
#include <postern/service_manager.h>
#include <sys/stat.h>

/* --- state ------------------------------------------------------------------------------------ */
struct supervisor_state {
    const char *path; /* lent */
    int dir_fd, lock_fd;
    int ca_fd;           /* the ca directory; -1: there is none yet */
    int file_fd;         /* its state, or an empty file for one, until the keeper has it */
    int key_fd, cert_fd; /* the old layout's, until then; -1: there is none */
    bool fresh;          /* file_fd is empty */
};
/* Makes or checks the directory, takes its lock, removes left-overs, opens or makes the files. */
int supervisor_state_open(struct supervisor_state *st, const char *path, struct log *log,
                          struct err *err);
/* An empty file for the next state. The descriptor is the caller's. */
int supervisor_state_make_file(struct supervisor_state *st, int *ret_fd, struct err *err);
/* Puts it in place: after this, and only after this, it is the state. */
int supervisor_state_commit(struct supervisor_state *st, struct err *err);
void supervisor_state_close_files(struct supervisor_state *st);
void supervisor_state_close(struct supervisor_state *st);

/* --- sockets ---------------------------------------------------------------------------------- */
struct supervisor_socket {
    int fd;
    const char *path; /* lent; NULL: TCP */
    struct stat file; /* which one was made, so that no other is removed at the end */
};
/* For orders: SOCK_SEQPACKET, 0600, and not even a sticky directory of others will do. */
int supervisor_socket_open_control(struct supervisor_socket *s, const char *path, struct err *err);
void supervisor_socket_close(struct supervisor_socket *s);
/* The same, with the socket of that address that the service manager opened, if there is one: its
 * file, mode and removal are the manager's. */
int supervisor_socket_take_or_open(struct supervisor_socket *s, const struct service_sockets *from,
                                   const char *path, mode_t mode, struct err *err);
int supervisor_socket_take_or_open_tcp(struct supervisor_socket *s,
                                       const struct service_sockets *from,
                                       const struct conf_sockaddr *addr, struct err *err);

/* --- children --------------------------------------------------------------------------------- */
struct supervisor_child {
    enum agent_role role;
    pid_t pid;
    int pidfd;   /* -1: not running */
    int control; /* our end */
    bool reported, ready;
    bool killed; /* what it still has in its queue is not listened to */
    uint32_t restarts;
    int64_t started_s;
    struct agent_msg_report report;
    struct err failure; /* what it said before it ended */
};

enum { SUPERVISOR_RESTARTS_MAX = 5, SUPERVISOR_RESTARTS_WINDOW_MS = 60000 };

struct supervisor_kubelet {
    struct agent_msg_kubelet_state state; /* for the service */
    uint64_t started_ms, restart_ms;      /* restart_ms 0: it runs, or is not wanted */
    uint64_t window_ms;                   /* since when its questions are counted */
    uint32_t n_questions;
    bool asked;        /* a question of its is under way */
    uint32_t pause_ms; /* before the next start */
};

struct supervisor_signer {
    uint64_t started_ms, restart_ms; /* restart_ms 0: it runs, or is not wanted */
    uint32_t pause_ms;               /* before the next start */
    int keeper_fd;                   /* the keeper's end of its channel, until it has it */
    bool given_up, pin_changed;      /* until the PIN's file is another */
};

struct supervisor {
    const struct conf_agent *conf;
    struct log *log;
    bool separated; /* started by root: each process has a user of its own */
    bool force_fallback;
    int signal_fd;
    int keeper_fd; /* the attestor's end of its channel to the keeper, until it has it */
    struct supervisor_state state;
    struct supervisor_socket api, admin, metrics;
    struct supervisor_control *control;       /* owned */
    struct supervisor_quarantine *quarantine; /* owned */
    struct supervisor_watch *watch;           /* owned */
    struct supervisor_documents *documents;   /* owned */
    struct supervisor_rollout *rollout;       /* owned */
    struct supervisor_history *history;       /* owned */
    struct supervisor_kubelet kubelet;
    struct supervisor_signer signer;
    struct supervisor_child
        children[AGENT_N_ROLES]; /* by role; the supervisor's own is its report */
    struct service_manager manager;
    struct service_sockets opened; /* by it, until they are used */
    uint64_t alive_ms;             /* when it had the last sign of life */
    bool reloading;                /* it was told so, and not yet that it is over */
    bool applied;                  /* the keeper has answered the last commit */
    bool running;    /* everything has been ready once: a service that ends is started again */
    bool stopping;   /* asked to end */
    bool ca_changed; /* files of the authority */
    bool reload;     /* the entries: their file is another one, or SIGHUP */
    uint64_t generation;
    struct agent_msg_entries_state entries; /* for the service */
    struct agent_msg_entries_applied last_applied;
    uint64_t restart_ms[SUPERVISOR_RESTARTS_MAX]; /* when the service was started again */
    size_t n_restarts;
    struct agent_msg_entry *loaded; /* owned; between loading and the keeper */
    size_t n_loaded;
    uint64_t hash_max_bytes;      /* of executables whose digest an entry asks for; 0: none does */
    uint64_t next_hash_max_bytes; /* the same of entries that the keeper has not answered for yet */
    union agent_msg in;
};

/* Starts a child with its control channel as descriptor 3 and the others behind it. */
int supervisor_start_child(struct supervisor *s, enum agent_role role, const char *name,
                           const int *more, size_t n_more, struct err *err);
/* What a child becomes: the user that the configuration names, with the group of that number. */
uint32_t supervisor_run_uid(const struct supervisor *s, uid_t uid);
uint32_t supervisor_run_gid(const struct supervisor *s, uid_t uid);
int supervisor_spawn_keeper(struct supervisor *s, struct err *err);
int supervisor_spawn_attestor(struct supervisor *s, struct err *err);
int supervisor_spawn_service(struct supervisor *s, struct err *err);
/* The loader: its channel and pidfd are the caller's. */
struct supervisor_job;
int supervisor_spawn_loader(struct supervisor *s, const struct supervisor_job *job, int file,
                            pid_t *ret_pid, int *ret_pidfd, int *ret_channel, struct err *err);
/* Sends to a child and waits for room; a child that does not take it within seconds has failed. */
int supervisor_tell(struct supervisor *s, enum agent_role role, const void *msg, int fd,
                    struct err *err);
/* The service alone may be broken or hostile without an end to the agent: one that does not take
 * its messages is killed, and what follows is the same as after any other end of it. */
void supervisor_tell_service(struct supervisor *s, const void *msg, int fd);
void supervisor_kill(struct supervisor *s, struct supervisor_child *c, const struct err *why);
/* Its end: collects it and fills err with who, how and why. */
void supervisor_reap(struct supervisor *s, struct supervisor_child *c, struct err *err);
/* Ends all that run: asks, waits, kills. */
void supervisor_stop_children(struct supervisor *s);

/* --- messages --------------------------------------------------------------------------------- */
/* What the child has said; 1: and it closed its channel. */
int supervisor_hear(struct supervisor *s, struct supervisor_child *c, struct err *err);
/* What the service has to know for its status page. */
void supervisor_tell_processes(struct supervisor *s);
void supervisor_tell_entries(struct supervisor *s);

/* --- loading ---------------------------------------------------------------------------------- */
/* One file for a loader. take gets what it says of the content, in s->in. */
struct supervisor_job {
    const char *name;    /* what the file is, for the loader */
    const char *path;    /* and where */
    const char *source;  /* what messages call it; NULL: path */
    const char *what;    /* for messages: "the entry file" */
    const char *reader;  /* for whom, of a policy: policy_source_write; NULL: nobody */
    uint32_t *n_doubts;  /* warnings of a file that was taken; may be NULL */
    const char *refused; /* the event of a log line for each error of the file */
    int (*take)(struct supervisor *s, void *arg, struct err *err);
    size_t (*n_taken)(const struct supervisor *s, const void *arg);
    void (*on_error)(void *arg, const struct err *error); /* may be NULL */
    void *arg;
    struct err *last_error; /* gets the last of them */
};
const char *supervisor_job_source(const struct supervisor_job *job);
/* 0: all of it was taken. -1: what was taken so far is of no use; each error was logged. */
int supervisor_load(struct supervisor *s, const struct supervisor_job *job, struct err *err);

/* --- documents for proxies -------------------------------------------------------------------- */
struct supervisor_documents;
/* Names the files to watch; after supervisor_watch_open. */
void supervisor_documents_open(struct supervisor *s);
void supervisor_documents_close(struct supervisor *s);
/* Reads what has changed. A file that is wrong stays as it was; if all have been good once and
 * something is another than before, the service is told. */
void supervisor_documents_turn(struct supervisor *s);
/* Other policies are in force, or staged: the same. */
void supervisor_documents_publish(struct supervisor *s);
uint64_t supervisor_documents_generation(const struct supervisor *s); /* 0: nothing was told */
/* The policy of the agent's file: whether one is configured, and whether it has been good. */
bool supervisor_documents_has_policy(const struct supervisor *s);
bool supervisor_documents_policy_good(const struct supervisor *s);
/* Through a loader into *ret, as a policy; what it says of errors goes to on_error with arg. */
int supervisor_documents_load_policy(struct supervisor *s, const char *path, const char *source,
                                     struct agent_doc *ret,
                                     void (*on_error)(void *arg, const struct err *error),
                                     void *arg, struct err *err);
/* All of it, to a new service. */
void supervisor_tell_documents(struct supervisor *s);

/* --- the service's history of permissive ports ------------------------------------------------ */
struct supervisor_history;
void supervisor_history_open(struct supervisor *s);
void supervisor_history_close(struct supervisor *s);
/* A part of it, to be kept; -1: it breaks the protocol. */
int supervisor_history_take(struct supervisor *s, const struct agent_msg_history *m,
                            struct err *err);
/* All of it, to a new service. */
void supervisor_history_tell(struct supervisor *s);
int supervisor_history_due_ms(const struct supervisor *s); /* -1: nothing is due */
void supervisor_history_turn(struct supervisor *s);

/* --- entries ---------------------------------------------------------------------------------- */
/* Reads the file through a loader into s->loaded. Each of its errors is logged; err then tells how
 * many. */
int supervisor_load_entries(struct supervisor *s, struct err *err);
/* Hands what was loaded to the keeper; the answer comes as a message. */
int supervisor_send_entries(struct supervisor *s, struct err *err);
/* The answer: the keeper has taken them, or those of before stay. */
void supervisor_entries_settled(struct supervisor *s, bool in_force);

/* --- watching --------------------------------------------------------------------------------- */
struct supervisor_watch;
/* Before privileges are given up. Where files cannot be watched they are looked at now and then. */
void supervisor_watch_open(struct supervisor *s);
void supervisor_watch_close(struct supervisor *s);
/* From here on *changed is set when another file stands behind `path` than the one that was there
 * at this call or at the last supervisor_watch_taken. Several paths may share a flag. Both are
 * lent. Whoever sees the flag resets it, says `taken` and reads the file, in this order. */
void supervisor_watch_add(struct supervisor *s, const char *path, bool *changed);
void supervisor_watch_taken(struct supervisor *s, const bool *changed);
/* SIGHUP. */
void supervisor_watch_all_changed(struct supervisor *s);
int supervisor_watch_fd(const struct supervisor *s); /* for poll(); -1: none */
int supervisor_watch_due_ms(const struct supervisor *s);
void supervisor_watch_turn(struct supervisor *s, bool readable);

/* A file that the agent was told to read: regular, and of nobody but root or the agent's own user
 * to write. */
int supervisor_source_open(const char *path, const char *what, int *ret_fd, struct err *err);

/* --- kubelet ---------------------------------------------------------------------------------- */
/* Nothing, where the configuration names none. */
int supervisor_kubelet_start(struct supervisor *s, struct err *err);
/* It has ended: what it told stays, and another one comes. */
void supervisor_kubelet_ended(struct supervisor *s, const struct err *why);
int supervisor_kubelet_due_ms(const struct supervisor *s); /* -1: nothing is due */
void supervisor_kubelet_turn(struct supervisor *s);
/* Its messages; -1: it breaks its protocol. */
int supervisor_kubelet_wants(struct supervisor *s, struct err *err);
int supervisor_kubelet_state(struct supervisor *s, const struct agent_msg_kubelet_state *said,
                             struct err *err);
/* To the service. */
void supervisor_kubelet_tell_state(struct supervisor *s);

/* --- signer ----------------------------------------------------------------------------------- */
/* Nothing, where the configuration names no token. It is ready before the keeper is started. */
int supervisor_signer_start(struct supervisor *s, struct err *err);
int supervisor_signer_ready(struct supervisor *s, struct err *err);
/* The channel, if there is one that the keeper has not got yet. */
int supervisor_signer_tell_keeper(struct supervisor *s, struct err *err);
/* It has ended while the agent runs: another one comes. */
void supervisor_signer_ended(struct supervisor *s, const struct err *why);
int supervisor_signer_due_ms(const struct supervisor *s); /* -1: nothing is due */
void supervisor_signer_turn(struct supervisor *s);

/* --- authority -------------------------------------------------------------------------------- */
/* The keeper's part of the state directory, at its start. */
int supervisor_send_state(struct supervisor *s, struct err *err);
/* Files of an authority that is not our own: watched, and read again. A file that is wrong changes
 * nothing; -1: the keeper is gone. */
void supervisor_watch_ca(struct supervisor *s);
int supervisor_reload_ca(struct supervisor *s, struct err *err);
/* The keeper wants an empty file, or has written it. */
int supervisor_on_state(struct supervisor *s, uint32_t type, struct err *err);
/* Hands an order to the keeper; its answer is the client's. */
void supervisor_order_ca(struct supervisor *s, uint64_t ticket,
                         const struct agent_control_request *request);
void supervisor_on_ca_answer(struct supervisor *s);

/* --- control ---------------------------------------------------------------------------------- */
struct supervisor_control;
enum {
    SUPERVISOR_CONTROL_CLIENTS = 8, /* at once; others wait until one has its answer */
    SUPERVISOR_CONTROL_FDS = 1 + SUPERVISOR_CONTROL_CLIENTS,
};
int supervisor_control_open(struct supervisor *s, struct err *err);
void supervisor_control_close(struct supervisor *s);
/* For poll(); nobody is let in before the agent is ready. */
void supervisor_control_watch(struct supervisor *s, struct pollfd ret[SUPERVISOR_CONTROL_FDS]);
void supervisor_control_turn(struct supervisor *s, const struct pollfd fds[SUPERVISOR_CONTROL_FDS]);
/* Until something of a client is over, -1 if there is none. */
int supervisor_control_due_ms(const struct supervisor *s);
/* Does what a checked request says (control_verbs.c). The ticket is the client's: exactly one of
 * the two below is called with it, now or later; one that has gone by then is no error. A message
 * to a child may carry it as request_id, and the child's answer brings it back. */
void supervisor_control_run(struct supervisor *s, uint64_t ticket,
                            const struct agent_control_request *request);
void supervisor_control_answer(struct supervisor *s, uint64_t ticket, struct str text);
void supervisor_control_refuse(struct supervisor *s, uint64_t ticket, const struct err *why);

/* --- journal ---------------------------------------------------------------------------------- */
/* The file to go on with and the head file, to a keeper that has just been started. */
int supervisor_journal_start(struct supervisor *s, struct err *err);
/* The keeper's question for the next one. What goes wrong is logged; the keeper asks again. */
int supervisor_journal_next(struct supervisor *s, uint64_t number, struct err *err);

/* The descriptor that came with the request that is being run; lent. */
int supervisor_control_file(const struct supervisor *s);

/* --- pushed policies (rollout.c; rollout_store.c: their files) -------------------------------- */
struct supervisor_rollout;
/* Reads the index; one that is damaged is an error. */
int supervisor_rollout_open(struct supervisor *s, struct err *err);
void supervisor_rollout_close(struct supervisor *s);
/* Parses what is in force and staged, once, before anything is told. */
void supervisor_rollout_load(struct supervisor *s);
/* False: what is in force or staged cannot be read, so that nothing may be told. */
bool supervisor_rollout_good(const struct supervisor *s);
/* The documents, or NULL: the file's, and none. */
const struct agent_doc *supervisor_rollout_in_force(const struct supervisor *s);
const struct agent_doc *supervisor_rollout_staged(const struct supervisor *s);
/* What the service has to know besides. */
void supervisor_rollout_fill(const struct supervisor *s, struct agent_msg_docs *m);
void supervisor_rollout_on_push(struct supervisor *s, uint64_t ticket,
                                const struct agent_control_request *request);
void supervisor_rollout_on_stage(struct supervisor *s, uint64_t ticket,
                                 const struct agent_control_request *request);
void supervisor_rollout_on_promote(struct supervisor *s, uint64_t ticket,
                                   const struct agent_control_request *request);
void supervisor_rollout_on_rollback(struct supervisor *s, uint64_t ticket,
                                    const struct agent_control_request *request);
void supervisor_rollout_on_status(struct supervisor *s, uint64_t ticket,
                                  const struct agent_control_request *request);

/* --- quarantine ------------------------------------------------------------------------------- */
struct supervisor_quarantine;
/* Reads its file; one that is damaged is an error, never an empty set. */
int supervisor_quarantine_open(struct supervisor *s, struct err *err);
void supervisor_quarantine_close(struct supervisor *s);
/* Hands the whole set on; ticket: whose order it answers, or 0. */
int supervisor_quarantine_tell_keeper(struct supervisor *s, uint64_t ticket, struct err *err);
void supervisor_quarantine_tell_service(struct supervisor *s);
/* The keeper's answer. */
void supervisor_quarantine_applied(struct supervisor *s, const struct agent_msg_deny_begin *msg);
/* Until something may be over, -1: nothing has an end. */
int supervisor_quarantine_due_ms(const struct supervisor *s);
void supervisor_quarantine_turn(struct supervisor *s);
void supervisor_quarantine_on_add(struct supervisor *s, uint64_t ticket,
                                  const struct agent_control_request *request);
void supervisor_quarantine_on_remove(struct supervisor *s, uint64_t ticket,
                                     const struct agent_control_request *request);
void supervisor_quarantine_on_list(struct supervisor *s, uint64_t ticket,
                                   const struct agent_control_request *request);
void supervisor_quarantine_on_serials(struct supervisor *s, uint64_t ticket,
                                      const struct agent_control_request *request);

/* --- the service manager ------------------------------------------------------------------------
 */
void supervisor_manager_ready(struct supervisor *s);
/* SIGHUP. supervisor_manager_turn tells when all of it is taken, or refused. */
void supervisor_manager_reloading(struct supervisor *s);
int supervisor_manager_due_ms(const struct supervisor *s); /* -1: nothing is due */
void supervisor_manager_turn(struct supervisor *s);

/* --- privs ------------------------------------------------------------------------------------ */
int supervisor_drop_privileges(struct supervisor *s, struct err *err);

#endif
