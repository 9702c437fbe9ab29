// What the panels say, in the language that ComfyUI is set to; English where there is no translation.

import { app } from "../../../scripts/app.js"

// The English text, with {places} for values, is the key.
export const WORDS = {
  zh: {
    "The drift is drawn here.": "此处将绘制漂移。",
    "The chunks are shown here.": "此处将显示各分块。",
    "no drift": "无漂移",
    "drift in {n} chunks": "{n} 个分块有漂移",
    "drift in chunk {chunks}": "分块 {chunks} 有漂移",
    means: "均值",
    variances: "方差",
    joint: "接缝",
    inside: "内部",
    "no joint yet": "尚无接缝",
    "end of chunk {i}": "分块 {i} 的结尾",
    "chunk {i}": "分块 {i}",
    "How far a chunk's means and variances are from the running ones (solid) and from the first chunk's (dashed); dotted: the thresholds. Chunks are counted from 0.":
      "分块的均值和方差与滑动值(实线)及首个分块(虚线)的距离;点线为阈值。分块从 0 开始计数。",
    "How much a pixel changes on average: over the joint before a chunk, and between the chunk's own frames.":
      "像素的平均变化量:跨越分块前的接缝,以及分块自身各帧之间。",
    "Prompts over chunks": "各分块的提示词",
    "Prompt of the chosen span": "所选区段的提示词",
    "Add a prompt (Insert)": "添加提示词(Insert)",
    "Remove this prompt (Delete)": "删除此提示词(Delete)",
    "Where this prompt begins": "此提示词的起点",
    "The first chunk that shows it alone": "首个仅显示它的分块",
    "From the start.": "从头开始。",
    "From chunk {chunk} on, a cut.": "从分块 {chunk} 起,直接切换。",
    "From chunk {chunk} on, blended in over {blend} chunks.": "从分块 {chunk} 起,在 {blend} 个分块内渐入。",
    "Drag a span, its left edge or its diamond, the first chunk that shows it alone. Double-click: a new prompt. Keys: Left and Right where it begins, with Shift how long it blends; Insert, Delete, Enter, Tab.":
      "拖动区段、其左边缘,或其菱形(首个仅显示它的分块)。双击:新提示词。按键:左右键移动起点,加 Shift 改变渐变长度;Insert、Delete、Enter、Tab。",
    "The text comes over a wire: edit it where it comes from.": "文本由连线传入:请在来源处编辑。",
    "The text does not begin with a chunk, as in {example}.": "文本开头不是分块,应如 {example}。",
    "Chunk {named}: wanted a whole number from 0 on.": "分块 {named}:应为从 0 开始的整数。",
    "Chunk {chunk}: the brackets take a whole number of chunks from 1 on.": "分块 {chunk}:括号内应为从 1 开始的整数分块数。",
    "The prompt of chunk {chunk} is empty.": "分块 {chunk} 的提示词为空。",
    "The first prompt begins at chunk {chunk}, not 0.": "首个提示词从分块 {chunk} 开始,而不是 0。",
    "Nothing comes before chunk 0 to blend from: leave its brackets out.": "分块 0 之前没有可渐变的内容:请去掉括号。",
    "Chunk {after} comes after chunk {before}.": "分块 {after} 写在了分块 {before} 之后。",
    "Chunk {before} blends over {blend} chunks, but the next prompt begins at {after}.":
      "分块 {before} 渐变 {blend} 个分块,但下一个提示词从 {after} 开始。",
    "This workflow names models that are not here": "此工作流所需的模型不存在",
    "Download the whole folder into {place}, then press R.": "将整个文件夹下载到 {place},然后按 R。",
    "Put its folder into {place}, then press R.": "将其文件夹放入 {place},然后按 R。",
    "helios-tiny, which ships with the pack, runs without any download.": "随包附带的 helios-tiny 无需下载即可运行。",
  },
  ja: {
    "The drift is drawn here.": "ドリフトがここに描かれます。",
    "The chunks are shown here.": "チャンクがここに表示されます。",
    "no drift": "ドリフトなし",
    "drift in {n} chunks": "{n} 個のチャンクでドリフト",
    "drift in chunk {chunks}": "チャンク {chunks} でドリフト",
    means: "平均",
    variances: "分散",
    joint: "つなぎ目",
    inside: "内部",
    "no joint yet": "つなぎ目はまだありません",
    "end of chunk {i}": "チャンク {i} の終わり",
    "chunk {i}": "チャンク {i}",
    "How far a chunk's means and variances are from the running ones (solid) and from the first chunk's (dashed); dotted: the thresholds. Chunks are counted from 0.":
      "チャンクの平均と分散が、移動平均(実線)と最初のチャンク(破線)からどれだけ離れているか。点線はしきい値。チャンクは 0 から数えます。",
    "How much a pixel changes on average: over the joint before a chunk, and between the chunk's own frames.":
      "画素の平均変化量:チャンクの前のつなぎ目と、チャンク自身のフレーム間。",
    "Prompts over chunks": "チャンクごとのプロンプト",
    "Prompt of the chosen span": "選んだ区間のプロンプト",
    "Add a prompt (Insert)": "プロンプトを追加(Insert)",
    "Remove this prompt (Delete)": "このプロンプトを削除(Delete)",
    "Where this prompt begins": "このプロンプトの開始位置",
    "The first chunk that shows it alone": "これだけが表示される最初のチャンク",
    "From the start.": "最初から。",
    "From chunk {chunk} on, a cut.": "チャンク {chunk} から、カットで切り替え。",
    "From chunk {chunk} on, blended in over {blend} chunks.": "チャンク {chunk} から、{blend} チャンクかけてブレンド。",
    "Drag a span, its left edge or its diamond, the first chunk that shows it alone. Double-click: a new prompt. Keys: Left and Right where it begins, with Shift how long it blends; Insert, Delete, Enter, Tab.":
      "区間、その左端、またはひし形(これだけが表示される最初のチャンク)をドラッグ。ダブルクリックで新しいプロンプト。キー:左右で開始位置、Shift を押すとブレンドの長さ。Insert、Delete、Enter、Tab。",
    "The text comes over a wire: edit it where it comes from.": "テキストは接続から来ています。元の場所で編集してください。",
    "The text does not begin with a chunk, as in {example}.": "テキストがチャンクで始まっていません。例:{example}。",
    "Chunk {named}: wanted a whole number from 0 on.": "チャンク {named}:0 以上の整数が必要です。",
    "Chunk {chunk}: the brackets take a whole number of chunks from 1 on.": "チャンク {chunk}:括弧には 1 以上の整数のチャンク数を書きます。",
    "The prompt of chunk {chunk} is empty.": "チャンク {chunk} のプロンプトが空です。",
    "The first prompt begins at chunk {chunk}, not 0.": "最初のプロンプトが 0 ではなくチャンク {chunk} から始まっています。",
    "Nothing comes before chunk 0 to blend from: leave its brackets out.": "チャンク 0 の前にはブレンド元がありません。括弧を外してください。",
    "Chunk {after} comes after chunk {before}.": "チャンク {after} がチャンク {before} の後に書かれています。",
    "Chunk {before} blends over {blend} chunks, but the next prompt begins at {after}.":
      "チャンク {before} は {blend} チャンクかけてブレンドしますが、次のプロンプトは {after} から始まります。",
    "This workflow names models that are not here": "このワークフローのモデルが見つかりません",
    "Download the whole folder into {place}, then press R.": "フォルダー全体を {place} にダウンロードし、R キーを押してください。",
    "Put its folder into {place}, then press R.": "そのフォルダーを {place} に置き、R キーを押してください。",
    "helios-tiny, which ships with the pack, runs without any download.": "パックに付属の helios-tiny はダウンロードなしで動きます。",
  },
}

export function say(text, values = {}) {
  const language = String(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en").split("-")[0]
  return (WORDS[language]?.[text] ?? text).replace(/\{(\w+)\}/g, (_, name) => values[name])
}
