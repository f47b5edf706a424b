/*
 * role_facts: what a process looks like to an agent, gathered for a person. Shared by
 * `postern agent attest` and `postern entries test`. Everything is read once, by the code that the
 * agent's own processes use; nothing of a running agent is asked.
 */
#ifndef POSTERN_ROLE_FACTS_H
#define POSTERN_ROLE_FACTS_H

#include <postern/attest.h>
#include <postern/conf.h>
#include <postern/keeper.h>
#include <postern/kubelet.h>

struct role_facts {
    struct attest_view view;
    struct attest_process process;
    struct attest_facts facts;
    uint8_t sha256[AGENT_SHA256_SIZE];
    bool has_sha256;
    const char *no_sha256;     /* why not */
    struct kubelet_pods *pods; /* owned; NULL: not asked, or no answer */
    struct err no_pods;        /* why not; ERR_NONE: there is no kubelet to ask */
    struct keeper_label labels[KUBELET_LABELS_MAX];
    struct keeper_pod pod; /* its texts are in pods */
    struct keeper_container container;
    struct keeper_facts keeper; /* all of it, as the keeper has it */
};

/* conf may be NULL: no kubelet is asked, executables have the default bound. */
int role_facts_gather(struct role_facts *f, pid_t pid, const struct conf_agent *conf,
                      bool want_digest, struct err *err);
void role_facts_deinit(struct role_facts *f);

/* A process's number from the command line; -1: it is none, told on standard error. */
pid_t role_facts_pid(const char *text);

#endif
