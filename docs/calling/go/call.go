// Calls a method from a program, and from a workflow of yours.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

type MethodCall struct {
	InstanceID string         `json:"instanceId"`
	Method     string         `json:"method,omitempty"`
	Params     map[string]any `json:"params"`
}

type MethodResult struct {
	Data       json.RawMessage `json:"data"`
	StatusCode int             `json:"statusCode"`
	Attempts   int             `json:"attempts"`
	Definition string          `json:"definition"`
}

type Failure struct {
	Code      string         `json:"code"`
	Message   string         `json:"message"`
	Retryable bool           `json:"retryable"`
	Details   map[string]any `json:"details"`
}

// failureOf is the first application failure in the error's chain.
func failureOf(err error) (Failure, bool) {
	var failure Failure
	var application *temporal.ApplicationError
	if !errors.As(err, &application) || application.Details(&failure) != nil {
		return failure, false
	}
	return failure, true
}

// Report is a workflow of yours: as a child a call waits for throttles and outages, as an activity it is one hop less.
func Report(ctx workflow.Context, instance string) (int, error) {
	call := MethodCall{InstanceID: instance, Method: "list_workflows", Params: map[string]any{"pageSize": 5}}
	var result MethodResult

	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		TaskQueue:         "integrations",
		ParentClosePolicy: enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
	})
	if err := workflow.ExecuteChildWorkflow(child, "ExecuteMethod", call).Get(ctx, &result); err != nil {
		return 0, err
	}

	activity := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              "integrations",
		StartToCloseTimeout:    45 * time.Second,
		ScheduleToCloseTimeout: 5 * time.Minute,
		HeartbeatTimeout:       10 * time.Second,
	})
	err := workflow.ExecuteActivity(activity, "temporal.list_workflows", call).Get(ctx, &result)
	if failure, ok := failureOf(err); ok && failure.Code == "REAUTH_REQUIRED" {
		return 0, nil // somebody must authorise the instance again
	}
	return result.StatusCode, err
}

func main() {
	address := os.Getenv("TEMPORAL_ADDRESS")
	if address == "" {
		address = "127.0.0.1:7233"
	}
	c, err := client.Dial(client.Options{HostPort: address})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	ctx := context.Background()
	options := client.StartWorkflowOptions{ID: "report-" + uuid.NewString(), TaskQueue: "integrations"}
	call := MethodCall{InstanceID: "my temporal", Method: "list_workflows", Params: map[string]any{"pageSize": 5}}
	run, err := c.ExecuteWorkflow(ctx, options, "ExecuteMethod", call)
	if err != nil {
		log.Fatal(err)
	}
	var result MethodResult
	err = run.Get(ctx, &result)
	if failure, ok := failureOf(err); ok {
		switch failure.Code {
		case "VALIDATION_ERROR":
			log.Fatalf("refused: %v", failure.Details["path"])
		default:
			log.Fatalf("%s: %s", failure.Code, failure.Message)
		}
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("workflow", result.StatusCode, result.Definition)
}
