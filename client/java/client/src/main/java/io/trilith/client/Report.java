package io.trilith.client;

import io.trilith.task.v1.ChannelCounter;
import io.trilith.task.v1.Counter;
import io.trilith.task.v1.ErrorReport;
import io.trilith.task.v1.SegmentGenerationProgressCounter;
import io.trilith.task.v1.StageInput;
import io.trilith.task.v1.StageReport;
import io.trilith.task.v1.TaskReport;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.ToLongFunction;
import java.util.stream.Collectors;

/**
 * What is known of a task, live while it runs.
 *
 * @param message all of it
 */
public record Report(TaskReport message) {
    /** Stages by number. Empty when planning failed. */
    public List<StageReport> stages() {
        return message.getStagesList();
    }

    /** Faults that did not fail the task, such as rows that could not be parsed. */
    public List<ErrorReport> warnings() {
        return message.getStatus().getWarningsList();
    }

    /** Why the task failed; empty otherwise. */
    public Optional<ErrorReport> error() {
        return message.getStatus().hasErrorReport()
                ? Optional.of(message.getStatus().getErrorReport())
                : Optional.empty();
    }

    /** Rows read so far from external data, datasources and the statement itself, by all workers. */
    public long rowsRead() {
        Set<String> leaves = new HashSet<>();
        for (StageReport stage : stages()) {
            List<StageInput> inputs = stage.getDefinition().getInputsList();
            for (int index = 0; index < inputs.size(); index++) {
                if (inputs.get(index).getInputCase() != StageInput.InputCase.STAGE_NUMBER) {
                    leaves.add(stage.getStageNumber() + "/input" + index);
                }
            }
        }
        return message.getCountersList().stream()
                .filter(Counter::hasChannel)
                .filter(counter -> leaves.contains(counter.getStageNumber() + "/" + counter.getName()))
                .mapToLong(counter -> rows(counter.getChannel()))
                .sum();
    }

    /** Rows taken in so far for segments; for a SELECT that ended well the rows of its result. */
    public long rowsWritten() {
        return message.hasResults()
                ? message.getResults().getRowCount()
                : segments(SegmentGenerationProgressCounter::getRowsProcessed);
    }

    /** Rows (after rollup) in deep storage so far. */
    public long rowsPushed() {
        return segments(SegmentGenerationProgressCounter::getRowsPushed);
    }

    private static long rows(ChannelCounter channel) {
        return channel.getRowsList().stream().mapToLong(Long::longValue).sum();
    }

    private long segments(ToLongFunction<SegmentGenerationProgressCounter> number) {
        return message.getCountersList().stream()
                .filter(Counter::hasSegmentGenerationProgress)
                .mapToLong(counter -> number.applyAsLong(counter.getSegmentGenerationProgress()))
                .sum();
    }

    /** One line for people: each stage with its phase, then the rows. */
    @Override
    public String toString() {
        String phases = stages().stream()
                .map(stage -> stage.getStageNumber() + ":" + (stage.hasPhase() ? stage.getPhase() : "NOT_STARTED"))
                .collect(Collectors.joining(" "));
        return "[" + phases + "] " + rowsRead() + " rows read, " + rowsWritten() + " written";
    }
}
