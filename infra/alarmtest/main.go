// Command alarmtest asks the deployed monitor to send a test message the whole way that alerts go, and tells who would
// get it: `make alarm-test policy=FILE`. It needs the right to invoke that one function.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/btcdecoded/holdfast/infra/settings"
	"github.com/btcdecoded/holdfast/shared/objstore/address"
	"github.com/btcdecoded/holdfast/shared/policy"
)

func main() {
	name := flag.String("policy", "", "the policy file of the deployment")
	by := flag.String("by", os.Getenv("USER"), "who tests; the message says it")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := run(ctx, os.Stdout, *name, *by); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, name, by string) error {
	region, err := regionOf(name)
	if err != nil {
		return err
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region))
	if err != nil {
		return err
	}
	payload, err := json.Marshal(map[string]string{"action": "alarm-test", "by": by})
	if err != nil {
		return err
	}
	function := settings.FunctionName(settings.Monitor)
	answer, err := lambda.NewFromConfig(cfg).Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String(function), Payload: payload})
	if err != nil {
		return fmt.Errorf("invoke %s in %s: %w", function, region, err)
	}
	if answer.FunctionError != nil {
		return fmt.Errorf("test of the alarms: %s", answer.Payload)
	}
	fmt.Fprintf(out, "sent: %s\nhint: it is proven when the message has arrived\n", answer.Payload)
	return nil
}

// regionOf is where the policy's bucket is, and with it the control plane.
func regionOf(name string) (string, error) {
	text, err := os.ReadFile(name) //nolint:gosec // the file that the user names
	if err != nil {
		return "", fmt.Errorf("read policy: %w", err)
	}
	p, err := policy.Parse(text)
	if err != nil {
		return "", fmt.Errorf("read policy %s: %w", name, err)
	}
	at, err := address.Parse(p.Repository.Primary)
	if err != nil {
		return "", err
	}
	if at.S3.Region == "" {
		return "", errors.New("the policy's primary repository names no region")
	}
	return at.S3.Region, nil
}
