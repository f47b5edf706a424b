// The verbs of ../clients/README.md, which the clients of all languages have.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

type fields map[string]interface{}

func say(event string, f fields) {
	f["event"] = event
	fail(json.NewEncoder(os.Stdout).Encode(f))
}

func sayError(err error) {
	say("error", fields{"code": status.Code(err).String(), "text": err.Error()})
}

func need(err error) {
	if err != nil {
		sayError(err)
		os.Exit(1)
	}
}

func authorities(set *x509bundle.Set) fields {
	domains := fields{}
	for _, b := range set.Bundles() {
		domains[b.TrustDomain().String()] = len(b.X509Authorities())
	}
	return domains
}

func sayX509(c *workloadapi.X509Context) {
	svids := []fields{}
	for _, s := range c.SVIDs {
		svids = append(svids, fields{"id": s.ID.String(), "hint": s.Hint, "leaf": hex.EncodeToString(s.Certificates[0].Raw)})
	}
	say("x509", fields{"svids": svids, "bundles": authorities(c.Bundles)})
}

type teller struct{}

func (teller) OnX509ContextUpdate(c *workloadapi.X509Context) { sayX509(c) }
func (teller) OnX509ContextWatchError(err error)              { sayError(err) }

// matrix does one of these verbs, if it is one.
func matrix(ctx context.Context, a []string) bool {
	where := workloadapi.WithAddr("unix://" + a[1])
	if a[0] != "watch" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
	}
	switch {
	case a[0] == "fetch" && len(a) == 2:
		c, err := workloadapi.FetchX509Context(ctx, where)
		need(err)
		sayX509(c)
		bundles, err := workloadapi.FetchX509Bundles(ctx, where)
		need(err)
		say("bundles", fields{"domains": authorities(bundles)})
	case a[0] == "watch" && len(a) == 2:
		need(workloadapi.WatchX509Context(ctx, teller{}, where))
	case a[0] == "jwt" && len(a) == 3:
		all, err := workloadapi.FetchJWTSVIDs(ctx, jwtsvid.Params{Audience: a[2]}, where)
		need(err)
		svids := []fields{}
		for _, s := range all {
			svids = append(svids, fields{"id": s.ID.String(), "hint": s.Hint, "token": s.Marshal()})
		}
		say("jwt", fields{"svids": svids})
		bundles, err := workloadapi.FetchJWTBundles(ctx, where)
		need(err)
		domains := fields{}
		for _, b := range bundles.Bundles() {
			domains[b.TrustDomain().String()] = len(b.JWTAuthorities())
		}
		say("jwks", fields{"domains": domains})
	case a[0] == "validate" && len(a) == 4:
		s, err := workloadapi.ValidateJWTSVID(ctx, a[3], a[2], where)
		need(err)
		say("valid", fields{"id": s.ID.String()})
	default:
		return false
	}
	return true
}
