package io.trilith.client;

import io.trilith.task.v1.State;
import io.trilith.task.v1.Task;
import java.util.Optional;

/**
 * How a task stands after a change.
 *
 * @param task the task
 * @param report its report; empty until the statement is planned
 */
public record TaskUpdate(Task task, Optional<Report> report) {
    /** Where the task is in its life. */
    public State state() {
        return task.getState();
    }

    /** Whether the task has ended, well or not. */
    public boolean ended() {
        return state() == State.STATE_SUCCESS || state() == State.STATE_FAILED;
    }

    /** One line for people: the state, then each stage with its phase, then the rows. */
    @Override
    public String toString() {
        String state = state().name().substring("STATE_".length());
        return task.getTaskId() + " " + state + report.map(known -> " " + known).orElse("");
    }
}
