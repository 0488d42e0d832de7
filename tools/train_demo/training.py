"""Losses, and a loop that goes on where it was stopped."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import attention
import torch
from architecture import SPECIAL
from batches import COLOR_NAMES, FORMS, GEOMETRY, IGNORED, TEXTS, Batch, Batches, Stage, Writer, normalized
from muon import Muon
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from asap_export.model.vision import VisionEncoder

SEED = 20260317
SEEING = ("model.vision_tower", "model.multi_modal_projector", "model.image_newline")
HALVES = ("top", "bottom"), ("left", "right")


class Alignment(nn.Module):
    """What a visual token shows, read off by its likeness to the embeddings of words.

    The tower is taught this way first: a patch that shows part of a red star then looks to the language model like
    the words "red" and "star".
    """

    def __init__(self, writer: Writer, width: int) -> None:
        super().__init__()
        words = [f" {word}" for word in (*COLOR_NAMES, *FORMS, *TEXTS, *HALVES[0], *HALVES[1])]
        ids = [writer.tokenizer.encode(word, add_special_tokens=False).ids for word in words]
        broken = [word for word, i in zip(words, ids, strict=True) if len(i) != 1]
        assert not broken, f"not one token: {broken}"
        self.counts = [len(COLOR_NAMES), len(FORMS), len(TEXTS)]
        told = torch.tensor([i[0] for i in ids]).split([sum(self.counts), 4])
        self.register_buffer("ids", told[0], persistent=False)
        self.halves = told[1].tolist()
        self.places = nn.Parameter(
            torch.randn(2, GEOMETRY.side, width) * 0.1
        )  # rows and columns of the base tile
        self.none = nn.Parameter(torch.zeros(3, width))
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, features: Tensor, labels: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and the part of patches read rightly per attribute where there is something to read.

        features: [n, D]; labels: [n, 3].
        """
        loss, right = features.new_zeros(()), []
        for i, ids in enumerate(self.ids.split(self.counts)):
            choices = torch.cat([self.none[i : i + 1], embedding[ids]])
            logits = (features @ choices.T).float() * self.scale[i]
            target = torch.where(labels[:, i] == IGNORED, IGNORED, labels[:, i] + 1)
            each = functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")
            some = target > 0
            # of every kind of thing there is much less to see than paper: both count the same
            loss = loss + (each * some).sum() / some.sum().clamp_min(1) + each[target == 0].mean()
            right.append((logits.argmax(-1) == target)[some].float().mean())
        return loss, torch.stack(right)

    def placed(self, features: Tensor, images: int, embedding: Tensor) -> Tensor:
        """Loss of telling row and column of each patch of the base tiles, and of the words for these.

        Only the base tiles say where in the image a patch lies. Those of their upper half are to look like the
        word "top", and so on.
        """
        side = GEOMETRY.side
        base = features.view(images, -1, side * side, features.shape[-1])[:, 0].flatten(0, 1)
        number = torch.arange(side * side, device=features.device).repeat(images)
        targets = torch.stack([number // side, number % side], dim=1)
        exact = (base @ self.places.flatten(0, 1).T).float().view(-1, 2, side)
        words = (base @ embedding[self.halves].T).float().view(-1, 2, 2)
        loss = functional.cross_entropy(exact.flatten(0, 1), targets.flatten())
        return loss + functional.cross_entropy(words.flatten(0, 1), (targets >= side // 2).long().flatten())


class Trainee:
    """The model, and the ways it is run in training."""

    def __init__(self, model, writer: Writer, device: str) -> None:
        self.model, self.writer, self.device = model.to(device), writer, device
        self.vision = VisionEncoder(model)
        self.language = model.model.language_model
        self.language.config._attn_implementation = attention.NAME
        self.embedding = self.language.embed_tokens
        self.alignment = Alignment(writer, model.config.text_config.hidden_size).to(device)
        self.prefix = torch.tensor(writer.prefix, device=device)

    def rows(self, batch: Batch) -> Tensor:
        """Features of all patches and, as the last row, the newline [tiles·patches + 1, D]."""
        count = batch.tiles.shape[0] * GEOMETRY.features
        return self.vision(normalized(batch.tiles), torch.arange(count + 1, device=self.device))

    def aligned(self, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        loss, read = self.alignment(rows[:-1], batch.labels.flatten(0, 1), self.embedding.weight)
        return loss + self.alignment.placed(rows[:-1], batch.text_ids.shape[0], self.embedding.weight), read

    def answered(self, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Loss over answers, part of answer tokens right, part of questions answered wholly right.

        Every question sees the image and itself only, at the positions it would have alone.
        """
        images, length = batch.text_ids.shape
        visual = rows[batch.gather_index].view(images, -1, rows.shape[-1])
        place = int((self.prefix == SPECIAL["<image>"]).nonzero())
        words = self.embedding(self.prefix).expand(images, -1, -1).to(rows.dtype)
        embeds = torch.cat(
            [words[:, :place], visual, words[:, place + 1 :], self.embedding(batch.text_ids).to(rows.dtype)],
            dim=1,
        )
        before = embeds.shape[1] - length
        positions = torch.cat(
            [torch.arange(before, device=self.device).expand(images, -1), before + batch.offset], dim=1
        )
        hidden = self.language(
            inputs_embeds=embeds,
            attention_mask=torch.ones(
                images, 1, 1, 1, dtype=torch.bool, device=self.device
            ),  # replaced by parts
            parts=attention.Parts.of(batch.block, before, torch.bfloat16),
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state[:, before:]
        asked = batch.targets != IGNORED
        logits = self.model.lm_head(hidden[asked]).float()
        targets = batch.targets[asked]
        loss = functional.cross_entropy(logits, targets)
        right = logits.argmax(-1) == targets
        most = int(batch.block.max()) + 1
        number = (batch.block + most * torch.arange(images, device=self.device)[:, None])[asked]
        wrong = torch.zeros(images * most, device=self.device).index_add(0, number, (~right).float())
        count = torch.zeros_like(wrong).index_add(0, number, torch.ones_like(right, dtype=torch.float))
        return loss, right.float().mean(), (wrong == 0)[count > 0].float().mean()


def rate(stage: Stage, step: int) -> float:
    warmup = min(1.0, (step + 1) / 50)
    fall = 0.5 * (1 + math.cos(math.pi * step / stage.steps))
    return warmup * (stage.last_rate + (stage.rate - stage.last_rate) * fall)


def make_optimizers(trainee: Trainee) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, which learns these in far fewer steps; AdamW for all else.

    The first two are of what sees, the others of what reads.
    """
    named = [*trainee.model.named_parameters(), *trainee.alignment.named_parameters()]
    optimizers: list[torch.optim.Optimizer] = []
    for sees in (True, False):
        some = [(n, p) for n, p in named if n.startswith(SEEING) == sees]
        inner = [p for n, p in some if ".layers." in n and p.dim() == 2]
        others = [p for n, p in some if not (".layers." in n and p.dim() == 2)]
        optimizers.append(Muon(inner, lr=0.0, weight_decay=0.02))
        optimizers.append(torch.optim.AdamW(others, lr=0.0, weight_decay=0.0, betas=(0.9, 0.98)))
    return optimizers


def train(
    trainee: Trainee,
    stages: list[Stage],
    folder: Path,
    on_save: Callable[[], None],
    steps_to_save: int = 100,
    stop_after: int | None = None,
) -> None:
    """Run the stages not yet done; state and curve lie in ``folder``. ``stop_after`` so many steps of a stage."""
    parameters = [*trainee.model.parameters(), *trainee.alignment.parameters()]
    optimizers = make_optimizers(trainee)
    state_file, done = folder / "state.pt", {"stage": 0, "step": 0}
    if state_file.exists():
        state = torch.load(state_file, map_location=trainee.device)
        trainee.model.load_state_dict(state["model"])
        trainee.alignment.load_state_dict(state["alignment"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        done = state["done"]
    for number in range(done["stage"], len(stages)):
        stage, start = stages[number], done["step"]
        loader = DataLoader(
            Batches(stage, start, SEED, trainee.writer), batch_size=None, num_workers=1, prefetch_factor=6
        )
        shown: dict[str, float] = {}
        since = time.time()
        for step, batch in enumerate(loader, start=start):
            batch = Batch(**{name: value.to(trainee.device) for name, value in batch.__dict__.items()})
            for place, optimizer in enumerate(optimizers):
                for group in optimizer.param_groups:
                    group["lr"] = rate(stage, step) * (stage.seeing_rate if place < 2 else 1)
            with torch.autocast(trainee.device, dtype=torch.bfloat16):
                rows = trainee.rows(batch)
                loss, read = trainee.aligned(rows, batch)
                figures = {"patch loss": loss, "color": read[0], "form": read[1], "text": read[2]}
                if stage.questions:
                    answer_loss, tokens, answers = trainee.answered(rows, batch)
                    loss = answer_loss + 0.2 * loss
                    figures |= {"loss": answer_loss, "tokens": tokens, "answers": answers}
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            for name, value in figures.items():
                value = float(value.detach())
                if not math.isnan(value):
                    shown[name] = 0.95 * shown.get(name, value) + 0.05 * value
            if (step + 1) % 20 == 0:
                line = {"stage": stage.name, "step": step + 1, "seconds": round(time.time() - since, 1)}
                line |= {name: round(value, 4) for name, value in shown.items()}
                print(json.dumps(line), flush=True)
                with (folder / "curve.jsonl").open("a") as curve:
                    curve.write(json.dumps(line) + "\n")
            if (step + 1) % steps_to_save == 0 or step + 1 == stage.steps:
                last = step + 1 == stage.steps
                if last and not stage.questions:  # answers start from the words the patches were taught
                    with torch.no_grad():
                        trainee.model.lm_head.weight.copy_(trainee.embedding.weight)
                done = {"stage": number + last, "step": 0 if last else step + 1}
                state = {
                    "model": trainee.model.state_dict(),
                    "alignment": trainee.alignment.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "done": done,
                }
                torch.save(state, folder / "state.part")
                (folder / "state.part").replace(state_file)
                on_save()
            if step + 1 == stop_after:
                return
        done = {"stage": number + 1, "step": 0}
