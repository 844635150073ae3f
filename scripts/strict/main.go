// strict reads files as the programs do that will take them, and refuses what these would not know.
//
//	strict compose [PROFILE,...] FILE  a compose file, by compose-go, the reader inside `docker compose`; prints its services.
//	                                   Without profiles: those of .env
//	strict kinds FILE                  manifests of operators' kinds (Gateway API, Prometheus operator), into their own types
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	strictly "sigs.k8s.io/yaml"
)

func main() {
	err := errors.New("usage: strict compose [PROFILES] FILE | strict kinds FILE")
	arguments := os.Args[1:]
	switch {
	case len(arguments) == 3 && arguments[0] == "compose":
		err = compose(strings.Split(arguments[1], ","), arguments[2])
	case len(arguments) == 2 && arguments[0] == "compose":
		err = compose(nil, arguments[1])
	case len(arguments) == 2 && arguments[0] == "kinds":
		err = kinds(arguments[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func compose(profiles []string, path string) error {
	options, err := cli.NewProjectOptions([]string{path},
		cli.WithOsEnv, cli.WithEnvFiles(), cli.WithDotEnv, cli.WithDefaultProfiles(profiles...))
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	names := project.ServiceNames()
	sort.Strings(names)
	for _, volume := range project.Services {
		for _, mount := range volume.Volumes {
			if mount.Type != "bind" {
				continue
			}
			if _, err := os.Stat(mount.Source); err != nil {
				return fmt.Errorf("%s: service %s mounts what is not there: %w", path, volume.Name, err)
			}
		}
	}
	for name, config := range project.Configs {
		if _, err := os.Stat(config.File); config.File != "" && err != nil {
			return fmt.Errorf("%s: config %s: %w", path, name, err)
		}
	}
	fmt.Println(strings.Join(names, " "))
	return nil
}

func kinds(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	documents := yaml.NewYAMLReader(bufio.NewReader(file))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var head struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
		}
		if err := strictly.Unmarshal(document, &head); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		var into any
		switch head.APIVersion + " " + head.Kind {
		case gateway.GroupVersion.String() + " HTTPRoute":
			into = &gateway.HTTPRoute{}
		case monitoring.SchemeGroupVersion.String() + " ServiceMonitor":
			into = &monitoring.ServiceMonitor{}
		case monitoring.SchemeGroupVersion.String() + " PrometheusRule":
			into = &monitoring.PrometheusRule{}
		default:
			return fmt.Errorf("%s: %s %s is not known here", path, head.APIVersion, head.Kind)
		}
		if err := strictly.UnmarshalStrict(document, into); err != nil {
			return fmt.Errorf("%s: %s: %w", path, head.Kind, err)
		}
	}
}
