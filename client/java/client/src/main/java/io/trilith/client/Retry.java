package io.trilith.client;

import io.grpc.Deadline;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.IntFunction;

/** Calls again while the server cannot be reached, ever more slowly, until a deadline. */
final class Retry {
    private static final Duration FIRST_PAUSE = Duration.ofMillis(100);
    private static final Duration LONGEST_PAUSE = Duration.ofSeconds(5);

    private final ManagedChannel channel;
    private final Deadline deadline;
    private Duration pause = FIRST_PAUSE;

    Retry(ManagedChannel channel, Deadline deadline) {
        this.channel = channel;
        this.deadline = deadline;
    }

    /** {@code call} is told how many tries went before it. Throws {@link TrilithException} only. */
    <T> T run(IntFunction<T> call) {
        for (int tries = 0; ; tries++) {
            int before = tries;
            try {
                return Failures.translated(() -> call.apply(before));
            } catch (UnavailableException failure) {
                pauseAfter(failure);
            }
        }
    }

    /** Makes the next pause a short one again: the server was reached. */
    void reached() {
        pause = FIRST_PAUSE;
    }

    /** Waits before the next try; throws the failure itself when the deadline leaves no time for one. */
    void pauseAfter(UnavailableException failure) {
        double share = ThreadLocalRandom.current().nextDouble(0.5, 1.0);
        long millis = Math.max(
                (long) (pause.toMillis() * share), failure.retryAfter().map(Duration::toMillis).orElse(0L));
        pause = pause.multipliedBy(2).compareTo(LONGEST_PAUSE) < 0 ? pause.multipliedBy(2) : LONGEST_PAUSE;
        if (deadline.timeRemaining(TimeUnit.MILLISECONDS) <= millis) {
            throw failure;
        }
        try {
            Thread.sleep(millis);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw ErrorDetails.own(Status.Code.CANCELLED, "canceled", "interrupted while waiting for the server")
                    .exception(failure);
        }
        // Else the channel itself would wait longer and longer before it tries to connect.
        channel.resetConnectBackoff();
    }
}
