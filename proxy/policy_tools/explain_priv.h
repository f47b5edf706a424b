/* What the files of explain share: the text for people (explain.c), the document (explain_json.c).
 */
#ifndef POSTERN_POLICY_EXPLAIN_PRIV_H
#define POSTERN_POLICY_EXPLAIN_PRIV_H

#include <postern/buf.h>
#include <postern/policy_explanation.h>

const char *explain_action_word(enum conf_action a);
/* False: it does not fit. */
bool explain_put_json(const struct conf_policy *conf, const struct policy_explanation *e,
                      struct buf *out);

#endif
