package io.trilith.client;

import io.trilith.task.v1.ListTasksRequest;
import io.trilith.task.v1.State;
import java.util.List;

/**
 * Which tasks to list.
 *
 * @param states only tasks in these states; empty: all
 * @param datasource only tasks of this datasource ({@code "__query_select"} for SELECT); empty: all
 */
public record TaskFilter(List<State> states, String datasource) {
    /** Takes a copy of the list. */
    public TaskFilter {
        states = List.copyOf(states);
    }

    /** All tasks. */
    public static TaskFilter all() {
        return new TaskFilter(List.of(), "");
    }

    /** Tasks in any of these states. */
    public static TaskFilter inStates(State... states) {
        return new TaskFilter(List.of(states), "");
    }

    /** Tasks of one datasource. */
    public static TaskFilter ofDatasource(String datasource) {
        return new TaskFilter(List.of(), datasource);
    }

    ListTasksRequest.Builder toRequest() {
        return ListTasksRequest.newBuilder().addAllStates(states).setDatasource(datasource);
    }
}
