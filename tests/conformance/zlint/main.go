// zlint over DER certificates, by the lints that come from the RFCs and from common practice; the rules of the public
// web's authorities do not concern a private one. A line "FILE LINT STATUS DETAILS" for each finding, then how many
// lints there were.
package main

import (
	"fmt"
	"os"

	"github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	sources := lint.SourceList{lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813, lint.Community}
	lints, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: sources})
	fail(err)
	applied := 0
	for _, file := range os.Args[1:] {
		der, err := os.ReadFile(file)
		fail(err)
		cert, err := x509.ParseCertificate(der)
		fail(err)
		for name, result := range zlint.LintCertificateEx(cert, lints).Results {
			if result.Status >= lint.Pass {
				applied++
			}
			if result.Status > lint.Pass {
				fmt.Println(file, name, result.Status, result.Details)
			}
		}
	}
	fmt.Println("applied", applied)
}
