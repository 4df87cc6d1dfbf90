// Check that a dashboard is one by the schema of Grafana, from its own SDK: no unknown field, none missing.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	text, err := os.ReadFile(os.Args[1])
	if err == nil {
		found := dashboard.Dashboard{}
		if err = found.UnmarshalJSONStrict(text); err == nil {
			err = found.Validate()
		}
	}
	// The SDK may give a list of errors that is empty.
	if err != nil && err.Error() != "" {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
