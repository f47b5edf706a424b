// What go-spiffe makes of an agent: its identities, its bundle, and the next SVID when it is pushed.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func fail(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	where := workloadapi.WithAddr("unix://" + os.Args[1])

	c, err := workloadapi.FetchX509Context(ctx, where)
	fail(err)
	for _, s := range c.SVIDs {
		fmt.Println(s.ID, s.Hint)
	}
	bundles, err := workloadapi.FetchX509Bundles(ctx, where)
	fail(err)
	b, err := bundles.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString(os.Args[2]))
	fail(err)
	fmt.Println("authorities", len(b.X509Authorities()))

	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(where))
	fail(err)
	defer source.Close()
	first, err := source.GetX509SVID()
	fail(err)
	for {
		select {
		case <-source.Updated():
		case <-ctx.Done():
			fail(ctx.Err())
		}
		next, err := source.GetX509SVID()
		fail(err)
		if next.Certificates[0].SerialNumber.Cmp(first.Certificates[0].SerialNumber) != 0 {
			fmt.Println("rotated")
			return
		}
	}
}
