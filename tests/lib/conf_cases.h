/*
 * conf_cases: bad configuration files beside all that is said of them. A table of a test runs
 * whole: an error too many fails as well as one too few.
 */
#ifndef POSTERN_TEST_CONF_CASES_H
#define POSTERN_TEST_CONF_CASES_H

#include <postern/buf.h>
#include <postern/conf.h>

enum conf_case_kind {
    PROXY,
    GATEWAY,
    MESH,
    POLICY,
    AGENT,
    ENTRIES,
    MODES,
    ROTATE,
    POLICY_TEST,
};

struct conf_case {
    enum conf_case_kind kind;
    const char *text;
    const char *said; /* each line without "/etc/f.yaml:" */
};

#define CONF_HEAD(kind) "kind: " kind "\nlevel: 1\n"
#define PROXY_HEAD CONF_HEAD("Proxy")
#define LISTENER                                                                                   \
    "listeners:\n- {name: a, direction: inbound, capture: intercepted, address: '0.0.0.0:1'}\n"
#define POLICY_HEAD CONF_HEAD("Policy") "rules:\n"
#define RULE POLICY_HEAD "- {name: r, action: ALLOW, "
#define ENTRIES_HEAD CONF_HEAD("Entries") "entries:\n"
#define ENTRY ENTRIES_HEAD "- {id: e, spiffe_id: 'spiffe://td/a', "
#define MESH_HEAD CONF_HEAD("Mesh") "services:\n"
#define AGENT_HEAD                                                                                 \
    CONF_HEAD("Agent") "trust_domain: td\nsocket: /run/s\nstate_dir: /var/s\nentries: e.yaml\n"

/* Parses as /etc/f.yaml of the kind and forgets the result; 0 or -1, and everything that was said.
 */
int conf_case_parse(enum conf_case_kind kind, const char *text, size_t len, struct buf *said);
/* It is refused, in these words and no others. */
void conf_case_run(const struct conf_case *c);
/* Likewise each. */
void conf_cases_run(const struct conf_case *cases, size_t n);
#define CONF_CASES(cases) conf_cases_run((cases), sizeof(cases) / sizeof((cases)[0]))
/* Fails with what was said if something was; frees diag. */
void conf_case_no_errors(struct conf_diag *diag);

#endif
