// A workflow of yours that calls methods by name.
import io.temporal.activity.ActivityOptions;
import io.temporal.api.enums.v1.ParentClosePolicy;
import io.temporal.failure.ActivityFailure;
import io.temporal.failure.ApplicationFailure;
import io.temporal.workflow.ChildWorkflowOptions;
import io.temporal.workflow.Workflow;
import io.temporal.workflow.WorkflowInterface;
import io.temporal.workflow.WorkflowMethod;
import java.time.Duration;
import java.util.Map;

@WorkflowInterface
public interface ReportWorkflow {
  @WorkflowMethod(name = "Report")
  int report(String instance);

  class Implementation implements ReportWorkflow {
    @Override
    public int report(String instance) {
      Map<String, Object> call =
          Map.of("instanceId", instance, "method", "list_workflows", "params", Map.of("pageSize", 5));

      // As a child: throttles and outages are waited out until `deadlineMs`.
      ChildWorkflowOptions asChild =
          ChildWorkflowOptions.newBuilder()
              .setTaskQueue("integrations")
              .setParentClosePolicy(ParentClosePolicy.PARENT_CLOSE_POLICY_REQUEST_CANCEL)
              .build();
      Map<?, ?> result =
          Workflow.newUntypedChildWorkflowStub("ExecuteMethod", asChild).execute(Map.class, call);

      // As an activity of this workflow: one hop less, and throttles spend its attempts.
      ActivityOptions asActivity =
          ActivityOptions.newBuilder()
              .setTaskQueue("integrations")
              .setStartToCloseTimeout(Duration.ofSeconds(45))
              .setScheduleToCloseTimeout(Duration.ofMinutes(5))
              .setHeartbeatTimeout(Duration.ofSeconds(10))
              .build();
      try {
        Workflow.newUntypedActivityStub(asActivity).execute("temporal.list_workflows", Map.class, call);
      } catch (ActivityFailure error) {
        if (error.getCause() instanceof ApplicationFailure failure
            && failure.getType().equals("REAUTH_REQUIRED")) {
          return 0; // somebody must authorise the instance again
        }
        throw error;
      }
      return ((Number) result.get("statusCode")).intValue();
    }
  }
}
