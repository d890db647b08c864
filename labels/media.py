"""Flags to the pictures of a run: where they are, which are taken, how large they are sent."""

from __future__ import annotations

from encoders.fit import parse_fit
from encoders.image import picture_libraries
from encoders.media import Media
from encoders.places import frame_store, video_store
from encoders.sample import ALL_FRAMES, Choice
from encoders.storage import variables_for
from engine.errors import ConfigError
from labels.flags import RunFlags


def media_of(flags: RunFlags, *, model: str) -> Media:
    """What the flags say of pictures.

    Raises:
        ConfigError: a flag is wrong, or what it names can be no place of media.
    """
    if flags.max_frames < 1:
        raise ConfigError("--max-frames must be at least 1; leave --frames-dir and --videos out to send text alone")
    if flags.num_frames != ALL_FRAMES and flags.num_frames < 1:
        raise ConfigError(f"--num-frames must be at least 1, or {ALL_FRAMES} for all, not {flags.num_frames}")
    return Media(
        fit=parse_fit(flags.fit, model=model),
        frames=None if flags.frames_dir is None else frame_store(flags.frames_dir),
        videos=None if flags.videos is None else video_store(flags.videos),
        choice=Choice(num_frames=flags.num_frames, sampling=flags.sampling, splice=flags.splice_single_frame),
        max_frames=flags.max_frames,
    )


def prepared(media: Media) -> tuple[str, ...]:
    """Make sure that the places can be read, index them if need be; what the user should know.

    Raises:
        ConfigError: a place is missing, unreadable or not what it claims to be.
    """
    notes: list[str] = []
    for flag, store in (("--frames-dir", media.frames), ("--videos", media.videos)):
        if store is None:
            continue
        try:
            notes += store.prepare()
        except ConfigError as error:
            raise ConfigError(f"{flag} {error}") from error
    if not media.is_wanted:
        return ()
    choice = media.choice
    if media.videos is not None and choice.splice is None and choice.num_frames > media.max_frames:
        notes.append(
            f"{choice.num_frames} frames of a video are chosen and {media.max_frames} of them sent; "
            "--max-frames sets how many may be"
        )
    return (*notes, f"Pictures are made small by {picture_libraries()}")


def worker_variables(flags: RunFlags) -> tuple[str, ...]:
    """Names of the environment that encoders need to reach the places of media."""
    places = (place for place in (flags.frames_dir, flags.videos) if place is not None)
    return tuple(sorted({name for place in places for name in variables_for(place)}))
