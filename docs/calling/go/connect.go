// Connects an instance of the README's definition `tickets` with an API key.
package main

import (
	"context"

	"go.temporal.io/sdk/client"
)

type Instance struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Error  *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// connect answers how the instance stands once the credential was proved: CONNECTED, AUTH_ERROR or, where it could not
// be proved yet, PENDING_AUTHENTICATION. The id is a UUID of yours: keep it.
func connect(ctx context.Context, c client.Client, gateway, instanceID, name, url, key string) (Instance, error) {
	var instance Instance
	owner := "connection:" + instanceID
	options := client.StartWorkflowOptions{ID: owner, TaskQueue: "integrations"}
	wanted := map[string]any{
		"instanceId": instanceID,
		"definition": "tickets",
		"name":       name,
		"config":     map[string]any{"url": url},
	}
	if _, err := c.ExecuteWorkflow(ctx, options, "ConnectInstance", wanted); err != nil {
		return instance, err
	}
	sealed, err := seal(gateway, instanceID, map[string]any{
		"type":   "api_key",
		"apiKey": map[string]any{"key": key, "headerOrParam": "X-API-Key", "inHeader": true},
	})
	if err != nil {
		return instance, err
	}
	update, err := c.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID:   owner,
		UpdateName:   "submit_credentials",
		Args:         []any{map[string]any{"sealed": sealed}},
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return instance, err
	}
	return instance, update.Get(ctx, &instance)
}
