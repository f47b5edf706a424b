/*
 * Places that `after` and `verify` name. Properties: what is taken is one of host with port and
 * socket, is terminated within its bounds, and written out again is taken as the same place.
 */
#include <postern/conf_after.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const schemes[] = {"tls", "tls+postgres", "tls+mysql", "http", "https"};
    struct conf_url url, again;
    char text[2048];
    memset(&url, 0, sizeof(url));
    memset(&again, 0, sizeof(again));
    if (conf_url_parse((struct str){(const char *)data, size}, &url) != NULL) {
        return 0;
    }
    bool local = url.unix_path[0] != '\0';
    bool http = conf_url_is_http(&url);
    require(local == (url.port == 0) && local == (url.host[0] == '\0'));
    require(!local || url.unix_path[0] == '/');
    require(http ? url.path[0] == '/' : url.path[0] == '\0');
    if (local) {
        snprintf(text, sizeof(text), "%s://unix:%s%s%s", schemes[url.scheme], url.unix_path,
                 http ? ":" : "", url.path);
    } else {
        bool six = strchr(url.host, ':') != NULL;
        snprintf(text, sizeof(text), "%s://%s%s%s:%u%s", schemes[url.scheme], six ? "[" : "",
                 url.host, six ? "]" : "", url.port, url.path);
    }
    require(conf_url_parse(str_of(text), &again) == NULL);
    require(url.scheme == again.scheme && url.port == again.port);
    require(strcmp(url.host, again.host) == 0 && strcmp(url.unix_path, again.unix_path) == 0 &&
            strcmp(url.path, again.path) == 0);
    return 0;
}
