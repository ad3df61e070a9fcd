"""The prompt that the published checkpoints were trained with."""

#: Instruction of the published reasoning checkpoints, letter by letter (the double space is theirs).
DEFAULT_INSTRUCTION = (
    "As an emotional recognition expert; throughout the video, which emotion conveyed by the characters is the most "
    "obvious to you?  Output the thinking process in <think> </think> and final emotion in <answer> </answer> tags."
)

SYSTEM = "You are a helpful assistant."


def prompt_pieces(instruction: str, *, video: bool, audio: bool) -> list[str]:
    """Text around the media placeholders, in order: one more piece than there are modalities.

    Each piece is tokenized by itself, as the reference does; `<vi_start>` and its kin are ordinary text to it.

    Args:
        instruction: The user's question.
        video: Whether visual tokens follow the first piece.
        audio: Whether audio tokens follow the next piece; an absent modality leaves no line behind.
    """
    pieces = [f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"]
    if video:
        pieces[-1] += "<vi_start>"
        pieces.append("<vi_end>\n")
    if audio:
        pieces[-1] += "<au_start>"
        pieces.append("<au_end>\n")
    pieces[-1] += f"{instruction}<|im_end|>\n<|im_start|>assistant\n"
    return pieces
