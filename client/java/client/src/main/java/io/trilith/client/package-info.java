/**
 * Calls a Trilith server: statements as tasks, their progress, rows as Arrow.
 *
 * <p>Start with {@link io.trilith.client.TrilithClient}. Every failing call throws a {@link
 * io.trilith.client.TrilithException}. Messages of the wire protocol ({@code io.trilith.task.v1}, …) are used as they
 * are where they say all there is to say.
 */
package io.trilith.client;
