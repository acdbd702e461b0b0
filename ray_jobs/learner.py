"""What each worker of a training does: a synchronous step, an epoch, a checkpoint.

Every global batch, and every image's variation in it, follows from seed, epoch and the image's place in the sorted
split. So the same training has the same loss curve with any number of workers, and after any resumption.
"""

import hashlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import log_softmax

from gitops.contracts.base import Contract, Split
from gitops.contracts.dataset import DatasetManifest
from gitops.contracts.model import EpochMetrics
from gitops.contracts.project import Memory, Preprocessing, Training
from gitops.errors import TrainingError
from gitops.state import write_atomically
from ray_jobs import model
from ray_jobs.augment import NOTHING, dropout_mask, random_of, vary
from ray_jobs.decoded import SplitImages, load_split
from ray_jobs.head import HEAD_IMAGES, MEMORY_EMPHASIS, VARIANTS, drawn_alike, fit_head

PROGRESS_FILE = "progress.json"
BEST_MODEL = "best.keras"
LEAST_REMEMBERED = 3
"""Good images that a memory needs, to know how far they lie from each other."""
_WEIGHTS = "weights.npz"
# AdamW's constants, as its authors and every framework have them.
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-7


class Assignment(Contract):
    """What a worker is told."""

    dataset: DatasetManifest
    dataset_folder: Path
    training: Training
    groups: tuple[int, ...] = Field(
        description="Number of each training image's group of look-alikes, in the order of the shards; empty without "
        "a memory, which alone asks for it."
    )
    run_folder: Path = Field(description="Where the first worker leaves its progress.")
    threads: int = Field(description="TensorFlow's threads for one operation.")


class Progress(Contract):
    """How far a training is: part of each checkpoint, and beside it for whoever watches."""

    epochs: tuple[EpochMetrics, ...] = ()
    restarts: int = 0

    @property
    def best_epoch(self) -> int:
        """The epoch with the smallest validation loss, the first of them; without validation the last; 0 before any."""
        losses = [epoch.validation_loss for epoch in self.epochs if epoch.validation_loss is not None]
        return losses.index(min(losses)) if losses else max(0, len(self.epochs) - 1)

    def is_finished(self, training: Training) -> bool:
        """Whether all epochs are done, or the last ones brought nothing better."""
        done = len(self.epochs)
        return done >= training.epochs or done - 1 - self.best_epoch >= training.patience


@dataclass(frozen=True)
class Images:
    """Images of a split in the order of their file names: the same on every worker. Pixels are read when asked for."""

    mapped: NDArray[np.uint8]
    """(all of the split, height, width, channels), in the order of the shards."""
    rows: NDArray[np.int64]
    """(n,), where in it each image lies."""
    labels: NDArray[np.int32]
    """(n,)."""

    @classmethod
    def of(cls, split: SplitImages, rows: NDArray[np.int64] | None = None) -> "Images":
        """A split's images, sorted; those in `rows`, if only some are wanted."""
        chosen = np.arange(len(split.labels)) if rows is None else rows
        order = chosen[np.argsort(np.array(split.filenames)[chosen], kind="stable")]
        return cls(split.images, order, split.labels[order].astype(np.int32))

    def pixels(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A copy of the images at these positions, (positions, height, width, channels)."""
        return self.mapped[self.rows[positions]]


def learning_rate(step: int, steps: int, training: Training) -> float:
    """The head's learning rate: a linear rise, then half a cosine down to zero at the last epoch's end.

    Args:
        step: from 0, over all epochs.
        steps: in an epoch.
        training: peak, warm-up and number of epochs.
    """
    warmup = training.warmup_epochs * steps
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1.0, training.epochs * steps - warmup)
    return training.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def class_weights(labels: NDArray[np.int32], classes: int) -> NDArray[np.float32]:
    """Weights with which every class counts alike, and the mean over the images is 1.

    Returns:
        float32, (classes,); zero for a class without images.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    weights = np.divide(len(labels) / present, counts, out=np.zeros(classes), where=counts > 0)
    return weights.astype(np.float32)


def global_batches(images: int, training: Training, epoch: int) -> NDArray[np.int64]:
    """An epoch's batches: positions, (steps, batch size). The rest that fills no batch waits for another epoch."""
    order = np.random.default_rng([training.seed, epoch]).permutation(images)
    steps = images // training.batch_size
    return order[: steps * training.batch_size].reshape(steps, training.batch_size)


def agreed(digest: str, first: str, *, worker: int, epoch: int) -> str:
    """The digest of a worker's weights, if the first worker has the same.

    Raises:
        TrainingError: they differ, so the workers have not trained the same model.
    """
    if digest != first:
        raise TrainingError(
            f"after epoch {epoch} worker {worker} has other weights ({digest[:12]}) than worker 0 "
            f"({first[:12]}): training is not synchronous; run it with --workers 1 and report this"
        )
    return digest


def learn(config: dict[str, Assignment]) -> None:
    """Train on one worker, in step with the others. Ray Train calls this in each worker process.

    Args:
        config: the assignment, under that key (Ray Train takes a dictionary).

    Raises:
        TrainingError: the loss is no longer finite, or the workers' weights differ.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "0"  # Ray's TensorflowConfig sets 1
    import ray.train
    import tensorflow as tf

    assignment = config["assignment"]
    training, context = assignment.training, ray.train.get_context()
    tf.get_logger().setLevel("WARNING")
    tf.config.threading.set_intra_op_parallelism_threads(assignment.threads)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if strategy.num_replicas_in_sync != context.get_world_size():
        raise TrainingError(f"{strategy.num_replicas_in_sync} replicas for {context.get_world_size()} workers")
    train = _read(assignment, "train")
    validation = _read(assignment, "validation") if any(assignment.dataset.counts["validation"].values()) else None
    with tempfile.TemporaryDirectory() as scratch:
        learner = Learner(assignment, strategy, context.get_world_rank(), train)
        progress = _resume(learner, Path(scratch))
        if not progress.epochs:
            learner.prepare()
        while not progress.is_finished(training):
            epoch = len(progress.epochs)
            metrics = learner.epoch(epoch, validation).model_copy(update={"weights": learner.agreed_digest(epoch)})
            progress = Progress(epochs=(*progress.epochs, metrics), restarts=progress.restarts)
            _checkpoint(learner, progress, Path(scratch))
            if learner.rank == 0:
                write_atomically(assignment.run_folder / PROGRESS_FILE, progress.to_json())


def _read(assignment: Assignment, split: Split) -> Images:
    """A whole split, mapped by every worker: a global batch is a draw from all of it.

    Ray Data's shards are left aside here. Which rows share a batch would follow from the number of workers and from
    which block came first, and its processes took longer to start than reading what the ETL wrote.
    """
    return Images.of(load_split(assignment.dataset_folder, assignment.dataset, split))


def _resume(learner: "Learner", scratch: Path) -> Progress:
    """Load the last checkpoint, if there is one."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return Progress()
    with checkpoint.as_directory() as path:
        learner.load(Path(path) / _WEIGHTS)
        shutil.copy(Path(path) / BEST_MODEL, scratch / BEST_MODEL)
        progress = Progress.read(Path(path) / PROGRESS_FILE)
    finished = progress.is_finished(learner.training)  # only the result was not written any more
    return progress if finished else progress.model_copy(update={"restarts": progress.restarts + 1})


def _checkpoint(learner: "Learner", progress: Progress, scratch: Path) -> None:
    """Report the epoch; rank 0 hands over the checkpoint."""
    import ray.train

    if progress.best_epoch == len(progress.epochs) - 1:
        learner.model.save(scratch / BEST_MODEL)
    checkpoint = None
    if learner.rank == 0:
        learner.save(scratch / _WEIGHTS)
        write_atomically(scratch / PROGRESS_FILE, progress.to_json())
        checkpoint = ray.train.Checkpoint.from_directory(scratch)
    ray.train.report(progress.epochs[-1].model_dump(), checkpoint=checkpoint)


class Learner:
    """The model with its optimizer (AdamW) on one worker, and the steps in which all workers move alike."""

    def __init__(self, assignment: Assignment, strategy: Any, rank: int, train: Images) -> None:
        """Make model and optimizer under the strategy, and compile the steps.

        Args:
            assignment: what to train.
            strategy: a tf.distribute strategy with one replica in this process.
            rank: of this worker.
            train: what it learns from; the same on every worker.
        """
        import keras
        import tensorflow as tf

        self.training, self.rank, self._strategy, self._train = assignment.training, rank, strategy, train
        self._local = self.training.batch_size // strategy.num_replicas_in_sync
        preprocessing, classes = assignment.dataset.preprocessing, len(assignment.dataset.classes)
        with strategy.scope():
            self.model = model.build(preprocessing, classes, self.training)
            self._variables = [variable.value for variable in self.model.trainable_variables]
            self._moments = [[tf.Variable(tf.zeros_like(v)) for v in self._variables] for _ in range(2)]
        self._head, self._memory = self.model.get_layer(model.LOGITS_LAYER), None
        self._members: NDArray[np.int32] | None = None
        self._remembered = np.empty(0, np.int64)
        outputs = [self.model.get_layer(model.POOLED_LAYER).output]
        if self.training.memory:
            from ray_jobs.memory import members_of, to_remember

            self._memory = self.model.get_layer(model.MEMORY_LAYER)
            groups = np.array(assignment.groups)[train.rows]
            self._remembered = to_remember(train.labels, groups, self.training.memory.images, self.training.seed)
            self._members = members_of(self._remembered, groups)
            outputs.append(self.model.get_layer(model.PATCHES_LAYER).output)
        # A model with a list of one output gives a tensor, not a list, so that [0] would be the first image.
        self._encoder = keras.Model(self.model.input, outputs if self._memory is not None else outputs[0])
        heads = {id(variable) for variable in self._head.trainable_variables}
        self._in_head = [id(variable) in heads for variable in self.model.trainable_variables]
        self._features = int(self._head.input.shape[-1])
        self._class_weights = tf.constant(class_weights(train.labels, classes))
        self._compile(preprocessing)

    def _compile(self, preprocessing: Preprocessing) -> None:
        import tensorflow as tf

        shape = (self._local, preprocessing.height, preprocessing.width, preprocessing.channels)
        images, labels = tf.TensorSpec(shape, tf.uint8), tf.TensorSpec((self._local,), tf.int32)
        mask, number = tf.TensorSpec((self._local, self._features), tf.float32), tf.TensorSpec((), tf.float32)
        numbers = [number] * 3

        def on_replica(function: Any, signature: list[Any]) -> Any:
            return tf.function(lambda *values: self._strategy.run(function, values), input_signature=signature)

        # Two graphs: as long as the backbone is frozen, its gradient is not computed.
        self._steps = {
            frozen: on_replica(partial(self._update, frozen), [images, labels, labels, mask, *numbers])
            for frozen in (True, False)
        }
        self._judge = on_replica(lambda batch: self.model(batch, training=False), [images])
        self._embed = on_replica(self._pooled, [images, labels])
        self._patches = on_replica(lambda batch: self._encoder(batch, training=False)[1], [images])
        self._sum = on_replica(self._all_reduce, [tf.TensorSpec((None,), tf.float64)])

    def _pooled(self, images: Any, members: Any) -> Any:
        """All that the head reads; `members` says which images must not be compared with themselves."""
        import tensorflow as tf

        found = self._encoder(images, training=True)
        if self._memory is None:
            return found
        return tf.concat([found[0], self._memory(found[1], members)[0]], axis=1)

    def _members_at(self, positions: NDArray[np.int64]) -> NDArray[np.int32]:
        return np.full(len(positions), -1, np.int32) if self._members is None else self._members[positions]

    def prepare(self) -> None:
        """Fill the memory and begin with a fitted head, where the settings ask for them.

        The workers share the images; the first one computes, and all take over what it found.
        """
        if self.training.memory is not None:
            self._remember(self.training.memory)
        if self.training.head == "fitted":
            self._fit_head()

    def _remember(self, settings: Memory) -> None:
        from ray_jobs.memory import remember

        chosen = self._remembered
        shape = self._encoder.output[1].shape[1:]
        patches = np.zeros((len(chosen), *shape))
        for places, real in self._portions(len(chosen)):
            patches[places[:real]] = self._patches(self._train.pixels(chosen[places])).numpy()[:real]
        patches = self.total(patches.ravel()).reshape(patches.shape)
        layer = self.model.get_layer(model.MEMORY_LAYER)
        values = [np.zeros(weights.shape) for weights in layer.get_weights()]
        if self.rank == 0:
            values = remember(patches, settings.dimensions, settings.images).arrays()
        # A sum in which all but the first worker have zeros: they all begin with the same bits.
        shared = [self.total(value.ravel().astype(np.float64)).reshape(value.shape) for value in values]
        layer.set_weights(shared)

    def _fit_head(self) -> None:
        train, variants = self._train, VARIANTS + 1
        chosen = drawn_alike(train.labels, HEAD_IMAGES, self.training.seed)
        features = np.zeros((variants, len(chosen), self._features))
        for places, real in self._portions(len(chosen)):
            positions = chosen[places]
            pixels = train.pixels(positions)
            for variant in range(variants):
                # Variant 0 is the image itself; the others must not be those of the first epochs.
                strength = self.training.augmentation if variant else NOTHING
                randoms = [random_of(self.training.seed + variant, self.training.epochs, int(p)) for p in positions]
                images = [vary(image, r, strength) for image, r in zip(pixels, randoms, strict=True)]
                found = self._embed(np.stack(images), self._members_at(positions)).numpy()
                features[variant, places[:real]] = found[:real]
        every = self.total(features.ravel()).reshape(variants * len(chosen), self._features)
        kernel, bias = np.zeros((self._features, len(self._class_weights))), np.zeros(len(self._class_weights))
        if self.rank == 0:
            kernel[:], bias[:] = fit_head(every, np.tile(train.labels[chosen], variants), len(bias), self._emphasis())
        self._head.set_weights([self.total(kernel.ravel()).reshape(kernel.shape), self.total(bias)])

    def _emphasis(self) -> NDArray[np.float64]:
        emphasis = np.ones(self._features)
        if self._memory is not None:
            emphasis[int(self._encoder.output[0].shape[-1]) :] = MEMORY_EMPHASIS
        return emphasis

    def epoch(self, epoch: int, validation: Images | None) -> EpochMetrics:
        """Learn from every image once.

        Args:
            epoch: from 0.
            validation: what is judged afterwards; None: nothing.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        begin, training = time.monotonic(), self.training
        batches = global_batches(len(self._train.labels), training, epoch)
        loss = 0.0
        for number, batch in enumerate(batches):
            loss += self.step(batch, epoch, epoch * len(batches) + number, len(batches))
        loss = float(self.total(np.array([loss]))[0]) / len(batches)
        validation_loss, accuracy = self.evaluate(validation) if validation else (None, None)
        if not (math.isfinite(loss) and math.isfinite(validation_loss or 0.0)):
            raise TrainingError(f"the loss is {loss} in epoch {epoch}: lower `training.learning_rate`")
        return EpochMetrics(
            epoch=epoch,
            loss=loss,
            validation_loss=validation_loss,
            validation_accuracy=accuracy,
            learning_rate=learning_rate((epoch + 1) * len(batches) - 1, len(batches), training),
            seconds=time.monotonic() - begin,
        )

    def step(self, batch: NDArray[np.int64], epoch: int, number: int, steps: int) -> float:
        """Learn from this worker's part of a global batch.

        Args:
            batch: positions of the global batch in the training split.
            epoch: from 0.
            number: of the step, over all epochs.
            steps: in an epoch.

        Returns:
            This worker's share of the batch's loss.
        """
        mine = batch[self.rank * self._local : (self.rank + 1) * self._local]
        randoms = [random_of(self.training.seed, epoch, int(position)) for position in mine]
        images = [
            vary(image, random, self.training.augmentation)
            for image, random in zip(self._train.pixels(mine), randoms, strict=True)
        ]
        masks = [dropout_mask(self._features, random, self.training.dropout) for random in randoms]
        rate = learning_rate(number, steps, self.training)
        unfrozen = number - self.training.frozen_epochs * steps + 1
        frozen = unfrozen < 1 or self.training.backbone_rate == 0
        values = np.float32(rate), np.float32(number + 1), np.float32(max(1, unfrozen))
        inputs = np.stack(images), self._members_at(mine), self._train.labels[mine], np.stack(masks)
        return float(self._steps[frozen](*inputs, *values))

    def _update(
        self, frozen: bool, images: Any, members: Any, labels: Any, mask: Any, rate: Any, count: Any, unfrozen: Any
    ) -> Any:
        """One step in replica context: the losses are divided by the global batch, so that gradients only add up."""
        import tensorflow as tf

        chosen = [index for index, head in enumerate(self._in_head) if head or not frozen]
        variables = [self._variables[index] for index in chosen]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits = self._head(self._pooled(images, members) * mask)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses * tf.gather(self._class_weights, labels)) / self.training.batch_size
        gradients = self._all_reduce(tape.gradient(loss, variables))
        gradients, _ = tf.clip_by_global_norm(gradients, self.training.clip_norm)
        for index, gradient in zip(chosen, gradients, strict=True):
            if self._in_head[index]:
                self._adamw(index, gradient, rate, count)
            else:
                self._adamw(index, gradient, rate * self.training.backbone_rate, unfrozen)
        return loss

    def _adamw(self, index: int, gradient: Any, rate: Any, count: Any) -> None:
        """Loshchilov and Hutter, 2019: weight decay apart from the gradient, and on kernels only.

        Not Keras's: its optimizer counts its steps itself and has one rate, where head and backbone here have each
        their own rate and count, which follow from the number of the step, so that a resumed training goes on with the
        same ones; and it would sum the gradients over the workers once more, which are summed already, since they are
        clipped together.
        """
        import tensorflow as tf

        variable, mean, square = self._variables[index], self._moments[0][index], self._moments[1][index]
        mean.assign(_BETA1 * mean + (1 - _BETA1) * gradient)
        square.assign(_BETA2 * square + (1 - _BETA2) * gradient * gradient)
        move = mean / (1 - _BETA1**count) / (tf.sqrt(square / (1 - _BETA2**count)) + _EPSILON)
        if len(variable.shape) > 1:
            move += self.training.weight_decay * variable
        variable.assign_sub(rate * move)

    def _all_reduce(self, values: Any) -> Any:
        import tensorflow as tf

        placed = tf.nest.map_structure(tf.identity, values)  # a value from outside has no device to be reduced to
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, placed)

    def logits(self, images: Images) -> NDArray[np.float64]:
        """What the model says of images that are not in its memory, (n, classes); the workers share them."""
        found = np.zeros((len(images.labels), len(self._class_weights)))
        for positions, real in self._portions(len(images.labels)):
            found[positions[:real]] = self._judge(images.pixels(positions)).numpy()[:real]
        return self.total(found.ravel()).reshape(found.shape)

    def evaluate(self, images: Images) -> tuple[float, float]:
        """Mean cross-entropy, in nats, and accuracy."""
        logits = self.logits(images)
        right = float(np.mean(logits.argmax(axis=1) == images.labels))
        return float(np.mean(-log_softmax(logits, axis=1)[np.arange(len(logits)), images.labels])), right

    def _portions(self, images: int) -> Iterator[tuple[NDArray[np.int64], int]]:
        """This worker's positions in portions of the compiled size; the last is filled up with its first position."""
        mine = np.arange(self.rank, images, self._strategy.num_replicas_in_sync)
        for begin in range(0, len(mine), self._local):
            portion = mine[begin : begin + self._local]
            yield np.pad(portion, (0, self._local - len(portion)), constant_values=portion[0]), len(portion)

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of all workers' values, (n,)."""
        return np.asarray(self._sum(values))

    def agreed_digest(self, epoch: int) -> str:
        """SHA-256 of the weights, after all workers have compared theirs with the first one's.

        Raises:
            TrainingError: they differ, so the workers have not trained the same model.
        """
        from ray.train.collective import broadcast_from_rank_zero

        digest = hashlib.sha256(b"".join(weights.tobytes() for weights in self.model.get_weights())).hexdigest()
        return agreed(digest, broadcast_from_rank_zero(digest), worker=self.rank, epoch=epoch)

    def save(self, path: Path) -> None:
        """Write weights and optimizer state."""
        values = self.model.get_weights() + [moment.numpy() for moments in self._moments for moment in moments]
        np.savez(path, *values)

    def load(self, path: Path) -> None:
        """Read what `save` wrote."""
        with np.load(path) as file:
            values = [file[name] for name in file.files]
        count = len(self.model.weights)
        self.model.set_weights(values[:count])
        moments = [moment for moments in self._moments for moment in moments]
        for moment, value in zip(moments, values[count:], strict=True):
            moment.assign(value)
