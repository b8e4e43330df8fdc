// Reads a ScaledObject from standard input into KEDA's own types, as strictly as the API server, and checks it as KEDA's
// admission webhook does. Prints what is wrong and exits with 1, or prints nothing.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"sigs.k8s.io/yaml"
)

func check(input io.Reader) error {
	text, err := io.ReadAll(input)
	if err != nil {
		return err
	}
	var object v1alpha1.ScaledObject
	if err := yaml.UnmarshalStrict(text, &object); err != nil {
		return err
	}
	return errors.Join(
		v1alpha1.CheckReplicaCountBoundsAreValid(&object),
		v1alpha1.CheckFallbackValid(&object),
		v1alpha1.ValidateTriggers(object.Spec.Triggers),
	)
}

func main() {
	if err := check(os.Stdin); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
