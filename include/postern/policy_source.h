/*
 * policy_source: a policy out of a file that is ours, or Istio's and Kubernetes', for whoever reads
 * one: data planes, the agent's loader, tools. Which of the two a file is it says itself
 * (conf_policy_is_foreign). Theirs are converted in memory (policy_convert.h) for the one who reads
 * them, all or nothing, and rules keep the lines of their file. docs/policy-convert.md.
 *
 * Bounded: a file of theirs has 4 MiB at most. Thread: any.
 */
#ifndef POSTERN_POLICY_SOURCE_H
#define POSTERN_POLICY_SOURCE_H

#include <postern/buf.h>
#include <postern/conf.h>
#include <postern/policy_convert.h>
#include <postern/str.h>

/* Who reads. Zeroes: a person, and what `policy convert` takes for granted. */
struct policy_source {
    struct policy_convert_options options; /* lends what is below */
    char *texts;                           /* owned */
    char **labels;                         /* owned, with its texts */
};
/* A data plane reads for its own workload, an agent for all of its node's. */
void policy_source_of_proxy(const struct conf_proxy *conf, struct policy_source *ret);
void policy_source_of_agent(const struct conf_agent *conf, struct policy_source *ret);
void policy_source_deinit(struct policy_source *s);
/* As a text without blanks but between its parts, and back: to another process. False: it does not
 * fit; it is none. */
bool policy_source_write(const struct policy_source *s, struct buf *out);
bool policy_source_read(struct str text, struct policy_source *ret);

/* 0 and *ret, also where there are doubts; -1 with at least one error in `errors`. */
int policy_source_parse(const struct policy_source *s, const char *name, struct str text,
                        struct conf_diag *errors, struct conf_diag *doubts,
                        struct conf_policy **ret);
int policy_source_load(const struct policy_source *s, const char *path, struct conf_diag *errors,
                       struct conf_diag *doubts, struct conf_policy **ret);
/* conf_split of a policy, with the lines of its file. */
int policy_source_split(const struct policy_source *s, const char *name, struct str text,
                        struct conf_diag *errors, struct conf_diag *doubts, conf_part_fn emit,
                        void *arg);

#endif
