/* The bounds of a document, before it is said: whoever makes one hears which it does not keep. */
#include <postern/agent_docs.h>

#include <string.h>

size_t agent_doc_bytes_max(uint32_t document)
{
    return document == AGENT_DOCUMENT_MESH    ? (size_t)AGENT_DOC_MESH_MAX
           : document == AGENT_DOCUMENT_MODES ? 0
                                              : (size_t)AGENT_DOC_BYTES_MAX;
}

size_t agent_doc_written_max(uint32_t document)
{
    return document == AGENT_DOCUMENT_MESH    ? (size_t)AGENT_DOC_MESH_WRITTEN_MAX
           : document == AGENT_DOCUMENT_MODES ? (size_t)AGENT_DOC_MODES_WRITTEN_MAX
                                              : (size_t)AGENT_DOC_WRITTEN_MAX;
}

static int too_large(struct err *err)
{
    err_set(err, ERR_LIMIT, "too large to be told to proxies");
    return err_advise(err, "split it, or give proxies files of their own");
}

int agent_doc_size_head(struct str text, struct err *err)
{
    if (text.n <= AGENT_DOC_HEAD_MAX) {
        return 0;
    }
    too_large(err);
    return err_expected(err, "at most %d MiB as JSON outside of its list",
                        AGENT_DOC_HEAD_MAX >> 20);
}

int agent_doc_size_item(struct agent_doc_size *s, const char *source, uint32_t line,
                        struct str text, const char *const *targets, size_t n_targets,
                        struct err *err)
{
    size_t max = agent_doc_bytes_max(s->which);

    s->n_items++;
    s->n_bytes += text.n;
    for (size_t i = 0; i < n_targets; i++) {
        s->n_target_bytes += strlen(targets[i]) + 1;
    }
    if (s->n_items <= AGENT_DOC_ITEMS_MAX && s->n_bytes <= max && line <= AGENT_DOC_LINES_MAX &&
        s->n_target_bytes <= AGENT_DOC_TARGETS_MAX) {
        return 0;
    }
    too_large(err);
    if (s->n_items > AGENT_DOC_ITEMS_MAX) {
        err_expected(err, "at most %d elements", AGENT_DOC_ITEMS_MAX);
    } else if (s->n_bytes > max) {
        err_expected(err, "at most %zu MiB as JSON", max >> 20);
    } else if (line > AGENT_DOC_LINES_MAX) {
        err_expected(err, "elements that begin on the first %d lines", AGENT_DOC_LINES_MAX);
    } else {
        err_expected(err, "at most %d MiB of target principals", AGENT_DOC_TARGETS_MAX >> 20);
    }
    return err_where(err, "%s:%u", source, line);
}
